package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestHistoryPrinter(t *testing.T) {
	const three = `{"event":{"sequence":1,"type":"cart.v1.ItemAdded","time":"2026-11-23T19:30:01.5Z","payload":"CgN0ZWEQAg==","message":{"item":"tea","quantity":2}},"lastSequence":3}
{"event":{"sequence":2,"type":"note","time":"2026-11-23T19:30:02Z","payload":"aGVsbG8="},"lastSequence":3}
{"event":{"sequence":3,"type":"odd\u001b[2J","time":"2026-11-23T19:30:03Z","payload":"/wA="},"lastSequence":3}
`
	for name, c := range map[string]struct {
		in    string
		json  bool
		want  string
		error string
	}{
		"table": {three, false, `SEQUENCE  TIME                      EVENT                 PAYLOAD
1         2026-11-23T19:30:01.500Z  cart.v1.ItemAdded     {"item":"tea","quantity":2}
2         2026-11-23T19:30:02.000Z  note                  hello
3         2026-11-23T19:30:03.000Z  "odd\x1b[2J"          base64:/wA=
`, ""},
		"json": {three, true, `{"sequence":1,"type":"cart.v1.ItemAdded","time":"2026-11-23T19:30:01.5Z","payload":"CgN0ZWEQAg==","message":{"item":"tea","quantity":2}}
{"sequence":2,"type":"note","time":"2026-11-23T19:30:02Z","payload":"aGVsbG8="}
{"sequence":3,"type":"odd\u001b[2J","time":"2026-11-23T19:30:03Z","payload":"/wA="}
`, ""},
		"nothing":      {`{"lastSequence":7}`, false, "", ""},
		"ends early":   {`{"event":{"sequence":1,"type":"a","time":"2026-11-23T19:30:01Z","payload":""},"lastSequence":1}{"error":"deleted"}`, true, `{"sequence":1,"type":"a","time":"2026-11-23T19:30:01Z","payload":""}` + "\n", "deleted"},
		"is torn":      {`{"lastSequence":7}` + "\n" + `{"eve`, false, "", "the control plane went away"},
		"is no answer": {`<html>`, false, "", "the control plane went away"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := &historyPrinter{w: &out, json: c.json}
			err := p.all(strings.NewReader(c.in))
			if out.String() != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", out.String(), c.want)
			}
			if (err != nil) != (c.error != "") || err != nil && !strings.Contains(err.Error(), c.error) {
				t.Errorf("got error %v, want %q", err, c.error)
			}
			if c.error == "" && c.want == "" && p.last != 7 {
				t.Errorf("last is %d, want 7", p.last)
			}
		})
	}
}
