# Does a command print what the document shows?
#
#   awk -v shape=... -v any=... -f output.awk SHOWN PRINTED
#
# Blanks count as one, empty lines not at all. `...` stands for anything in a line, alone on a line for
# any lines; so does a shown line that `any` matches. With shape a number stands for a number, the unit
# behind it for a unit, a bar of # for a bar. Exit 1 and the first line that differs, if one does.

function squeeze(s) { gsub(/[ \t]+/, " ", s); sub(/^ /, "", s); sub(/ $/, "", s); return s }

# The shown line as a pattern.
function pattern(s,    i, c, out) {
    if (shape) {
        gsub(/[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?/, "\001", s)
        gsub(/\001 (kB|MB|GB|TB|B|ns|us|ms|s|min|h)( |$)/, "\001 \002 ", s)
        sub(/ $/, "", s)
        gsub(/##+/, "\003", s)
    }
    gsub(/\.\.\./, "\004", s)
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (c == "\001") c = "[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?"
        else if (c == "\002") c = "[kMGTB]*[nu]?[ms]?[a-z]*"
        else if (c == "\003") c = "#+"
        else if (c == "\004") c = ".*"
        else if (index("\\^$.[]|()*+?{}", c)) c = "[" c "]"
        if (c == "[\\]") c = "\\\\"
        if (c == "[^]") c = "\\^"
        out = out c
    }
    return "^" out "$"
}

{ raw = $0; $0 = squeeze($0) }
$0 == "" { next }
FNR == NR { shown[++m] = $0; star[m] = $0 == "..." || (any != "" && raw ~ any); want[m] = star[m] ? "" : pattern($0); next }
{ printed[++n] = $0 }
END {
    i = j = 1
    while (j <= n) {
        if (i <= m && star[i]) { back = i++; from = j }
        else if (i <= m && printed[j] ~ want[i]) { i++; j++; if (i > far) { far = i; far_at = j } }
        else if (back) { i = back + 1; j = ++from }
        else break
    }
    while (i <= m && star[i]) i++
    if (j > n && i > m) exit 0
    if (!far) { far = star[1] ? 2 : 1; far_at = 1 }
    while (far <= m && star[far]) far++
    print "shown:   " (far <= m ? shown[far] : "nothing more")
    print "printed: " (far > 1 && star[far - 1] ? "no such line" : far_at <= n ? printed[far_at] : "nothing more")
    exit 1
}
