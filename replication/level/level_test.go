package level

import "testing"

func TestTable(t *testing.T) {
	var last Level
	for _, m := range Table() {
		if m.Level <= last {
			t.Errorf("%s: out of order", m.Name)
		}
		last = m.Level
		if m.Level.String() != m.Name || m.Name == "" || m.ReplyAfter == "" || m.Survives == "" || m.MayLose == "" || m.Otherwise == "" {
			t.Errorf("%s: %+v is incomplete", m.Level, m)
		}
	}
}

func TestParse(t *testing.T) {
	for name, ok := range map[string]bool{
		"LOCAL": true, "LOCAL_MEM": false, "MAJORITY": false, "ALL": false, "STRONG": false, "local": false, "": false,
	} {
		if m, err := Parse(name); (err == nil) != ok || ok && m.Name != name {
			t.Errorf("%q: %+v, %v", name, m, err)
		}
	}
}
