package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// plainValue is an entity's value for a column of a table. What is no value that this version knows stays as it is.
func plainValue(raw json.RawMessage) string {
	v := &holdfastv1.Value{}
	if err := protojson.Unmarshal(raw, v); err != nil {
		return string(raw)
	}
	if text := plain(v); text != "" {
		return text
	}
	return string(raw)
}

func plain(v *holdfastv1.Value) string {
	switch k := v.GetKind().(type) {
	case *holdfastv1.Value_Gcounter:
		return strconv.FormatUint(k.Gcounter, 10)
	case *holdfastv1.Value_Pncounter:
		return strconv.FormatInt(k.Pncounter, 10)
	case *holdfastv1.Value_Value:
		return plainBytes(k.Value)
	case *holdfastv1.Value_Lww:
		return plainBytes(k.Lww)
	case *holdfastv1.Value_Gset:
		return plainList(k.Gset.GetElements())
	case *holdfastv1.Value_Orset:
		return plainList(k.Orset.GetElements())
	case *holdfastv1.Value_Mvregister:
		return plainList(k.Mvregister.GetValues())
	case *holdfastv1.Value_Flag:
		return map[bool]string{true: "on", false: "off"}[k.Flag]
	case *holdfastv1.Value_Vote:
		return fmt.Sprintf("%d of %d in favour", k.Vote.GetVotesFor(), k.Vote.GetTotalVoters())
	case *holdfastv1.Value_Bcounter:
		return fmt.Sprintf("%d (%d available here)", k.Bcounter.GetValue(), k.Bcounter.GetAvailable())
	case *holdfastv1.Value_EventSourced:
		return fmt.Sprintf("events up to %d, snapshot at %d", k.EventSourced.GetSequence(), k.EventSourced.GetSnapshotSequence())
	case *holdfastv1.Value_Ormap:
		var entries []string
		for _, name := range sortedKeys(k.Ormap.GetEntries()) {
			entries = append(entries, fmt.Sprintf("%s: %s", plainBytes([]byte(name)), plain(k.Ormap.GetEntries()[name])))
		}
		return "{" + strings.Join(entries, ", ") + "}"
	}
	return ""
}

func plainList(elements [][]byte) string {
	out := make([]string, len(elements))
	for i, e := range elements {
		out[i] = plainBytes(e)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// plainBytes shows text as text; what a terminal could take for an order is quoted.
func plainBytes(b []byte) string {
	if !utf8.Valid(b) {
		return "base64:" + base64.StdEncoding.EncodeToString(b)
	}
	if len(b) == 0 || strings.ContainsFunc(string(b), func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(string(b))
	}
	return string(b)
}
