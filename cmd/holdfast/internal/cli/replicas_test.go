package cli

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
)

func TestGroups(t *testing.T) {
	for _, c := range []struct {
		args []string
		want [][]string
	}{
		{[]string{"a,b", "c"}, [][]string{{"a", "b"}, {"c"}}},
		{[]string{"a", "|", "b,c"}, [][]string{{"a"}, {"b", "c"}}},
		{[]string{"a,"}, nil},
		{[]string{""}, nil},
		{[]string{"|"}, nil},
	} {
		got, err := parseGroups(c.args)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%q: got %v, %v, want %v", c.args, got, err, c.want)
		}
	}
}

func TestPlainValue(t *testing.T) {
	for value, want := range map[string]string{
		`{"gcounter":"7"}`:                       "7",
		`{"pncounter":"-7"}`:                     "-7",
		`{"lww":"aGVsbG8="}`:                     "hello",
		`{"value":""}`:                           `""`,
		`{"lww":"G1sySg=="}`:                     `"\x1b[2J"`,
		`{"lww":"/w=="}`:                         "base64:/w==",
		`{"orset":{"elements":["YQ==","Yg=="]}}`: "[a, b]",
		`{"gset":{}}`:                            "[]",
		`{"flag":true}`:                          "on",
		`{"flag":false}`:                         "off",
		`{"vote":{"selfVote":true,"votesFor":2,"totalVoters":3}}`:                                    "2 of 3 in favour",
		`{"bcounter":{"value":"5","available":"2"}}`:                                                 "5 (2 available here)",
		`{"ormap":{"entries":{"b":{"gcounter":"1"},"a":{"ormap":{"entries":{"x":{"flag":true}}}}}}}`: "{a: {x: on}, b: 1}",
		`{"later":1}`: `{"later":1}`,
	} {
		if got := plainValue(json.RawMessage(value)); got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
	}
}

func TestReplicasTable(t *testing.T) {
	k := &admin.Key{Consistency: "eventual", Copies: []admin.Copy{
		{
			Node: "node-1", Role: admin.RolePlaced, Hash: "0123456789abcdef", Exists: true, Value: json.RawMessage(`{"gcounter":"3"}`),
			Seen: []admin.Seen{{Replica: "beef", Upto: 1, Beyond: 4}, {Node: "node-1", Replica: "0011aa", Upto: 2}, {Node: "node-1", Replica: "9922bb", Upto: 7}, {Node: "node-2", Upto: 5}},
		},
		{Node: "node-2", Role: admin.RolePlaced, Error: "connection refused"},
		{Node: "node-3", Role: admin.RoleJoined, Hash: "fedcba9876543210"},
		{Node: "node-4", Role: admin.RoleNone, Hash: "0000000000000000"},
	}}
	k.Compare()
	var b strings.Builder
	if err := printReplicas(&b, k); err != nil {
		t.Fatal(err)
	}
	want := `
STORE   ROLE    REACHABLE  HASH      VALUE               SEEN
node-1  placed  yes        01234567  3                   beef: 1 +4, node-1/0011: 2, node-1/9922: 7, node-2: 5
node-2  placed  no         -         connection refused  
node-3  joined  yes        fedcba98  (does not exist)    
node-4  none    yes        -         -                   

3 replicas hold 2 different states: node-1 | node-3; no answer from node-2.
`
	if got := b.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	b.Reset()
	strong := &admin.Key{Consistency: "strong", Copies: []admin.Copy{{Node: "node-1", Exists: true, Value: json.RawMessage(`{"value":"aGk="}`)}}}
	strong.Compare()
	if err := printReplicas(&b, strong); err != nil || !strings.Contains(b.String(), "in etcd") || !strings.Contains(b.String(), "hi") {
		t.Errorf("strong: %v, %s", err, b.String())
	}
}
