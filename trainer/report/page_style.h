#pragma once

namespace cosmos::trainer {

/// Style sheet of report.html: system fonts, light and dark.
inline constexpr const char* kPageStyle = R"css(
:root{--ink:#1b1f24;--soft:#656d76;--line:#e3e6ea;--paper:#fff;--wash:#f6f8fa;--main:#2f6f2f;
--raw:#a9cfa0;--second:#b4540a;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3ad;--line:#30363d;--paper:#15181c;
--wash:#1c2026;--main:#76b900;--raw:#3e5a22;--second:#f0883e}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header{padding:28px max(32px,calc(50vw - 588px)) 20px;border-bottom:1px solid var(--line);background:var(--wash)}
header h1{margin:0;font-size:26px;letter-spacing:-.01em}header p{margin:2px 0 0;color:var(--soft)}
main{max-width:1240px;margin:0 auto;padding:24px 32px 64px}
h2{margin:36px 0 12px;font-size:19px}h3{margin:18px 0 8px;font-size:14px;color:var(--soft);
font-weight:600}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.card{border:1px solid var(--line);border-radius:8px;padding:14px 16px;background:var(--wash)}
.card b{display:block;font-size:21px;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.card span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(520px,100%),1fr));gap:16px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px 14px;min-width:0}
figcaption{font-weight:600;font-size:14px}figcaption i,figcaption small{font-weight:400;
color:var(--soft)}
svg{width:100%;height:auto;display:block}
polyline{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke:var(--main)}
polyline.raw{stroke:var(--raw);stroke-width:1}polyline.second{stroke:var(--second)}
circle{fill:var(--main)}circle.second{fill:var(--second)}
.grid{stroke:var(--line)}.axis{stroke:var(--soft);stroke-width:.8}
.tick{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}
.key{display:inline-block;width:14px;height:3px;border-radius:2px;margin:0 4px 3px 12px;
background:var(--main)}.key.raw{background:var(--raw)}.key.second{background:var(--second)}
.bars{width:100%;border-collapse:collapse;font-size:13px;margin-top:8px}
.bars th{text-align:right;font-weight:400;color:var(--soft);padding:3px 10px 3px 0;
white-space:nowrap;width:1%}
.bars span{display:block;height:14px;border-radius:3px;background:var(--main);min-width:1px}
.bars .value{width:1%;white-space:nowrap;padding-left:10px;font-variant-numeric:tabular-nums}
rect{fill:var(--main)}rect.second{fill:var(--second)}
.limit{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:4 3}
.funnel span{display:inline-block;vertical-align:middle;border-radius:0}
.funnel span.lost{background:var(--second)}
.funnel td:nth-child(2){line-height:0;padding:5px 0}
small{color:var(--soft)}
.pictures{display:flex;flex-wrap:wrap;gap:12px}
.picture{padding:8px}.picture img{display:block;max-width:100%;border-radius:4px;
image-rendering:auto}
.picture figcaption{font-weight:400;font-size:12px;color:var(--soft);margin-top:4px}
.facts th{text-align:left;font-weight:400;color:var(--soft);padding:3px 24px 3px 0}
details{margin-top:24px;border:1px solid var(--line);border-radius:8px;padding:10px 16px}
summary{cursor:pointer;font-weight:600}
pre{overflow:auto;font:12.5px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;color:var(--ink)}
)css";

}  // namespace cosmos::trainer
