# Sourced by the benchmark scripts: their options and --help.

# parse_options NAMES "$@": sets the variable of each --NAME VALUE; NAMES are those that the script takes.
# --help prints the comment at the top of the script.
parse_options() {
  local names=" $1 " script=${0##*/} option
  shift
  while [ $# -gt 0 ]; do
    case $1 in -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
    option=${1#--}
    [[ $1 == --* && $names == *" $option "* ]] || { echo "$script: unknown option $1 (try --help)" >&2; exit 1; }
    [ $# -gt 1 ] || { echo "$script: $1 needs a value (try --help)" >&2; exit 1; }
    printf -v "$option" %s "$2"
    shift 2
  done
}
