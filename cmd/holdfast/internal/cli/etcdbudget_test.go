package cli

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

func TestEtcdTally(t *testing.T) {
	in := tally{}
	for key, size := range map[string]int64{
		"/holdfast/placement":                            1000,
		"/holdfast/compaction":                           1000,
		"/holdfast/stores/node-1":                        1000,
		"/holdfast/slots/bank.Account/0001":              50,
		"/holdfast/slots/bank.Account/0002":              50,
		"/holdfast/entities/bank.Account/0001/a":         100,
		"/holdfast/entities/bank.Account/0002/b%2Fc":     70,
		"/holdfast/cells/bank.Account/0002/b%2Fc/r/001":  60,
		"/holdfast/cells/bank.Account/0002/b%2Fc/s":      1,
		"/holdfast/due/bank.Account/000000000001/0001/a": 90,
		"/holdfast/entities/cart.Cart/0001/x":            5,
	} {
		in.add(key, size)
	}
	got := in.report(1)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	a := got[0]
	if a.Type != "bank.Account" || a.Entities != 2 || a.Heads != 170 || a.Cells != 61 || a.CellsN != 2 || a.Marks != 1 || a.Slots != 2 ||
		len(a.Largest) != 1 || a.Largest[0] != (keyReport{"b/c", 131}) {
		t.Errorf("got %+v", a)
	}
	if c := got[1]; c.Type != "cart.Cart" || c.Entities != 1 || c.Slots != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestEtcdBudgetPrints(t *testing.T) {
	r := &etcdReport{Types: []typeReport{{Type: "bank.Account", Entities: 2, Heads: 2048, Cells: 100, Marks: 1, Slots: 3, Largest: []keyReport{{"a", 1500}, {"b", 10}}}}}
	err := r.members([]etcd.MemberUsage{
		{Endpoint: "https://a", Usage: etcd.Usage{Size: 900 << 20, InUse: 100 << 20, Quota: 1 << 30}, Version: "3.7.3", Leader: true, Rev: 7},
		{Endpoint: "https://b", Err: errors.New("gone")},
		{Endpoint: "https://c", Usage: etcd.Usage{Size: 900 << 20, InUse: 256 << 20, Quota: 1 << 30}, Version: "3.7.3", Rev: 7},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r.Compaction = &etcd.Compaction{At: at, By: "node-1", Rev: 5}
	var out bytes.Buffer
	if err := r.print(&out, at.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	want := `256.0 MiB of 1.00 GiB in use (25.0 %). Writes that need more room are refused from 819.2 MiB.
History was compacted 2s ago by node-1.

MEMBER     FILE       IN USE     QUOTA     REVISION  VERSION  
https://a  900.0 MiB  100.0 MiB  1.00 GiB  7         3.7.3    leader
https://b                                                     gone
https://c  900.0 MiB  256.0 MiB  1.00 GiB  7         3.7.3    

TYPE          ENTITIES  HEADS    CELLS  MARKS  SLOTS OWNED  LARGEST KEYS
bank.Account  2         2.0 KiB  100 B  1      3            a (1.5 KiB), b (10 B)
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if r.members([]etcd.MemberUsage{{Endpoint: "https://a", Err: errors.New("gone")}}) == nil {
		t.Error("no member answers: no error")
	}
}
