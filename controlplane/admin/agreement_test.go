package admin

import (
	"reflect"
	"testing"
)

func TestAgreement(t *testing.T) {
	at := func(node, role, hash string) Copy { return Copy{Node: node, Role: role, Hash: hash} }
	away := Copy{Node: "z", Role: RolePlaced, Error: "connection refused"}
	for _, c := range []struct {
		what   string
		copies []Copy
		agree  bool
		groups [][]string
		want   string
	}{
		{"nobody", nil, false, [][]string{}, "no replica is known"},
		{"one", []Copy{at("a", RolePlaced, "1")}, true, [][]string{{"a"}}, "the only replica answers"},
		{
			"all",
			[]Copy{at("a", RolePlaced, "1"), at("b", RolePlaced, "1"), at("c", RoleJoined, "1"), at("d", RoleNone, "0")},
			true,
			[][]string{{"a", "b", "c"}},
			"all 3 replicas agree",
		},
		{
			"two sides",
			[]Copy{at("a", RolePlaced, "1"), at("b", RolePlaced, "2"), at("c", RolePlaced, "2")},
			false,
			[][]string{{"b", "c"}, {"a"}},
			"3 replicas hold 2 different states: b, c | a",
		},
		{
			"one away",
			[]Copy{at("a", RolePlaced, "1"), at("b", RolePlaced, "1"), away},
			false,
			[][]string{{"a", "b"}},
			"the 2 replicas that answer agree; no answer from z",
		},
		{
			"sides and one away",
			[]Copy{at("a", RolePlaced, "1"), at("b", RolePlaced, "2"), away},
			false,
			[][]string{{"a"}, {"b"}},
			"3 replicas hold 2 different states: a | b; no answer from z",
		},
		{"all away", []Copy{away}, false, [][]string{}, "no replica answers"},
	} {
		a := agree(c.copies)
		if a.Agree != c.agree || a.Summary != c.want || !reflect.DeepEqual(a.Groups, c.groups) {
			t.Errorf("%s: got %+v", c.what, a)
		}
	}
	strong := &Key{Consistency: "strong", Copies: []Copy{at("a", "", "1")}}
	if strong.Compare(); strong.Agreement != nil {
		t.Error("a strong entity's copies are compared")
	}
}
