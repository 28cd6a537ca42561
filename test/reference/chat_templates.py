"""The published chat templates of the Qwen families, read from the user's own copies, and conversations that
go through every branch of them.

COSMOS_CHAT_TEMPLATES names a folder with the `chat_template.jinja` of the published models, one file a kind:
qwen2.jinja (Qwen2.5-7B-Instruct), qwen2_5_vl.jinja (Qwen2.5-VL-7B-Instruct), qwen3.jinja (Qwen3-8B) and
qwen3_vl.jinja (Qwen3-VL-8B-Instruct). They are their authors' text and no part of this repository.
"""

import os
import pathlib
import sys

KINDS = ("qwen2", "qwen2_5_vl", "qwen3", "qwen3_vl")


def _read() -> dict:
    folder = os.environ.get("COSMOS_CHAT_TEMPLATES")
    if folder is None:
        sys.exit(f"chat_templates: COSMOS_CHAT_TEMPLATES is not set.\n{__doc__}")
    return {kind: (pathlib.Path(folder) / f"{kind}.jinja").read_text() for kind in KINDS}


TEMPLATES = _read()
VISION = {"qwen2_5_vl", "qwen3_vl"}


def text(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def media(role: str, *parts: str) -> dict:
    """Parts that end in .jpg or .mp4 are media."""
    kinds = {".jpg": "image", ".mp4": "video"}
    kind = lambda p: kinds.get(p[-4:], "text")  # noqa: E731
    return {"role": role, "content": [{"type": kind(p), kind(p): p} for p in parts]}


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 3, "ok": True}}}
CALL_2 = {"name": "stop", "arguments": {"at": [1, 2.5, None]}}
TEXT_CALL = {"function": {"name": "go", "arguments": '{"b": 1,"a":2}'}}
TOOLS = [
    {"function": {"description": "It's <b>\"new\"</b> & 天气", "name": "weather",
                  "parameters": {"properties": {"city": {"type": "string"}}, "type": "object"}}, "type": "function"},
    {"function": {"name": "stop", "parameters": {}}, "type": "function"},
]  # fmt: skip

PLAIN = [
    [text("user", "Hi")],
    [text("system", "Be brief."), text("user", " two\n\nlines "), text("assistant", "\nyes\n"), text("user", "why?")],
    [text("user", "a"), text("assistant", "b"), text("user", "c"), text("assistant", "d")],
    [text("user", "q"), text("assistant", "<think>\nlet me\n\nsee\n</think>\n\n<answer>4</answer>")],
    [text("user", "q"), text("assistant", "<think>x</think>y"), text("user", "r"), text("assistant", "no thought")],
]
WITH_TOOLS = [
    [text("user", "weather?"), {"role": "assistant", "content": "", "tool_calls": [CALL, CALL_2]},
     text("tool", '{"t": 20}'), text("tool", "stopped"), text("assistant", "20 degrees.")],
    [text("system", "S"), text("user", "go"),
     {"role": "assistant", "content": "<think>\nhm\n</think>\n\ncalling", "tool_calls": [CALL]},
     text("tool", "ok"), text("assistant", "<think>\n\n</think>\n\ndone"), text("user", "again"),
     {"role": "assistant", "content": "x", "tool_calls": [CALL_2]}, text("tool", "1")],
    [text("user", "<tool_response>\nx\n</tool_response>"), text("assistant", "a"), text("system", "late")],
    [text("user", "go"), {"role": "assistant", "content": "", "tool_calls": [TEXT_CALL]}, text("tool", "ok")],
]  # fmt: skip
WITH_MEDIA = [
    [media("user", "a.jpg", "What is this?")],
    [media("system", "You ", "see."), media("user", "c.mp4", "a.jpg", "b.jpg", "Compare."), media("assistant", "No", "."),
     media("user", "and ", "d.mp4")],
    [text("system", "S"), media("user", "before a.", "a.jpg", " after")],
]  # fmt: skip


def conversations(kind: str):
    """{"messages", "tools", options} for one template."""
    chats = [{"messages": m} for m in PLAIN]
    if kind in VISION:
        chats += [{"messages": m, "add_vision_id": v} for m in WITH_MEDIA for v in (False, True)]
    if kind != "qwen2_5_vl":  # its template drops tools
        for messages in WITH_TOOLS:
            late = any(m["role"] == "system" for m in messages[1:])
            if not (late and kind == "qwen3_vl"):  # its template drops a late system message
                chats += [{"messages": messages}, {"messages": messages, "tools": TOOLS}]
    if kind == "qwen3_vl":
        chats.append({"messages": [text("user", "look"), {"role": "assistant", "content": "", "tool_calls": [CALL]},
                                   media("tool", "a.jpg", "seen")]})  # fmt: skip
    chats += [dict(c, add_generation_prompt=True) for c in chats]
    if kind == "qwen3":
        chats += [dict(c, enable_thinking=False) for c in chats if c.get("add_generation_prompt")]
    return chats
