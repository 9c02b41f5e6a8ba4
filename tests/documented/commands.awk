# The shell commands of a document, and the output that it shows of them.
#
#   awk -v doc=NAME -v folder=DIR -f commands.awk FILE      (-v help=1: what --help prints)
#
# prints a line a command, its parts separated by the byte 31: where (NAME:LINE), "run" or "name", the
# command. Output that the document shows is written to DIR/WHERE, a slash in it as an underscore.
#
# - In a fenced block without a language, or of sh, bash, console: a line whose first word (after $ and
#   VARIABLE=value) names a program of below is a command, all else is output of the one before it;
#   sh and bash have no output. A block that does not begin with a command is the output of the last
#   command of the paragraph before it, where that ends with a colon; else it is a figure.
# - In text indented by four: a line of kiln, make, or a program of the repository.
# - In the text: code in back quotes of one of these, if it has two words or more.
# A command of `kiln` and plain words, perhaps one flag without a value, in back quotes is a name.

function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }

# Without the prompt, and without a comment that stands behind a blank and outside of quotes.
function bare(s,    i, c, quote) {
    s = trim(s)
    sub(/^\$ /, "", s)
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (quote != "") {
            if (c == quote) quote = ""
        } else if (c == "\"" || c == "'") {
            quote = c
        } else if (c == "#" && (i == 1 || substr(s, i - 1, 1) == " ")) {
            s = substr(s, 1, i - 1)
        }
    }
    return trim(s)
}

# Is it a command? Arrows and boxes are of drawings. strict: of this repository.
function command(s, strict,    word) {
    s = trim(s)
    sub(/^\$ /, "", s)
    while (s ~ /^[A-Z_]+=[^ ]* /) sub(/^[A-Z_]+=[^ ]* +/, "", s)
    if (index(s, "\342\224") || index(s, "\342\226")) return 0
    word = s
    sub(/[ ;].*/, "", word)
    if (word ~ /^(kiln|make)$/ || word ~ /^(build|bench|scripts|examples)\/[a-z_0-9\/]+(\.py)?$/) return 1
    if (strict) return 0
    return word ~ /^(run|mpirun|mpiexec|cc|gcc|clang|pkg-config|git|cp|mkdir|cat|source|eval|man|curl|ssh|tensorboard|python3?|pip|sudo|apt|apt-get)$/ || word ~ /^\.\//
}

function say(where, what, text) { printf "%s:%d\037%s\037%s\n", doc, where, what, text }

function file_of(where) { file = doc ":" where; gsub(/\//, "_", file); return folder "/" file }

function inline(where, text) {
    text = trim(text)
    gsub(/\\\|/, "|", text)
    if (!command(text, 1) && text !~ /^run /) return
    if (text !~ / / && text != "make") return
    last = where
    say(where, text ~ /^kiln( [a-z][a-z-]*)+( --[a-z-]+)?$/ ? "name" : "run", text)
}

# A paragraph is over: its spans of code are known.
function paragraph() {
    if (span != "") { print FILENAME ": " span_line ": an odd back quote" >"/dev/stderr"; exit 1 }
    open = 0
}

function block(    i, at, text, first, commands) {
    for (first = 1; first < lines && trim(line[first]) ~ /^(#|$)/; first++) {}
    commands = language != "" || command(line[first], 0)
    at = 0
    for (i = 1; commands && i <= lines; i++) {
        text = line[i]
        if (language != "" ? language != "console" || text ~ /^\$ / : command(text, 0)) {
            if (bare(text) == "") continue
            at = number[i]
            while (text ~ /\\$/ && i < lines) { sub(/\\$/, "", text); i++; text = text trim(line[i]) }
            say(at, "run", bare(text))
        } else if (at) {
            print text >file_of(at)
        }
    }
    if (!commands && colon && last) for (i = 1; i <= lines; i++) print line[i] >file_of(last)
}

help {
    if (/^  +kiln / && !/:$/) {
        sub(/^ +/, ""); sub(/  +.*/, "")
        say(NR, $0 ~ /^kiln( [a-z][a-z-]*)+$/ ? "name" : "run", $0)
    }
    next
}

fenced && /^ *```/ { block(); fenced = 0; last = 0; colon = 0; next }
fenced { if (wanted) { line[++lines] = $0; number[lines] = NR } next }
/^ *```/ {
    language = $0
    gsub(/[` ]/, "", language)
    wanted = language ~ /^(sh|bash|console)?$/
    fenced = 1; lines = 0; open = 0; span = ""
    next
}
/^ *$/ { paragraph(); blank = 1; next }
/^    / && (blank || indented) {
    indented = 1
    if (command($0, 1)) say(NR, "run", bare($0))
    next
}
{
    if (blank || /^\|/) { if (blank) { last = 0 } open = 0; span = "" }
    blank = 0; indented = 0
    colon = /:$/
    n = split($0, part, "`")
    for (i = 1; i <= n; i++) {
        if (i > 1) {
            if (open) { inline(span_line, span); span = "" } else { span_line = NR }
            open = !open
        }
        if (open) span = (span == "" ? "" : span " ") part[i]
    }
}
