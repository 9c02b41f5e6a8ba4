# What is done with each documented command, by the table.
#
#   awk -f rules.awk TABLE COMMANDS      (COMMANDS as commands.awk prints them)
#
# prints, separated by the byte 31: where, what (run, name, not), the exit code, the program that it
# needs, "shape" where numbers are compared as numbers, a pattern of shown lines that stand for anything,
# the command as it is documented, as it is run, and the reason of the last rule. A rule that matches
# nothing is an error.

function fail(text) { print text; bad = 1 }

FNR == NR {
    if (/^#/ || /^ *$/) next
    n = split($0, part, /   *\|   */)
    want = part[1] ~ /^(not|shape|fakes)$/ ? 3 : 4
    if (n != want || part[1] !~ /^(less|not|exit|fakes|needs|shape|any)$/) {
        fail("table, line " FNR ": " n " columns of \"" part[1] "\"; the table says what there is")
        next
    }
    how[++rules] = part[1]; what[rules] = part[3]; why[rules] = part[n]; at[rules] = FNR
    split(part[2] " but not ", pattern, / but not /)
    matches[rules] = pattern[1]; avoids[rules] = pattern[2]
    next
}
FNR == 1 { FS = "\037"; $0 = $0 "" }
{
    split($0, part, "\037")
    where = part[1]; kind = part[2]; documented = text = part[3]
    code = 0; program = shape = any = reason = ""
    for (i = 1; i <= rules; i++) {
        if (text !~ matches[i] || (avoids[i] != "" && text ~ avoids[i])) continue
        if (kind == "name" && how[i] != "not") continue
        used[i] = 1
        reason = why[i]
        if (how[i] == "less") { sub(matches[i], what[i], text) }
        if (how[i] == "not") { kind = "not"; break }
        if (how[i] == "exit") code = what[i]
        if (how[i] == "fakes") kind = "fakes"
        if (how[i] == "needs") program = what[i]
        if (how[i] == "shape") shape = "shape"
        if (how[i] == "any") any = what[i]
    }
    printf "%s\037%s\037%s\037%s\037%s\037%s\037%s\037%s\037%s\n", where, kind, code, program, shape, any, documented, text, reason >actions
}
END {
    for (i = 1; i <= rules; i++) if (!used[i]) fail("table, line " at[i] ": nothing documented matches " matches[i])
    exit bad
}
