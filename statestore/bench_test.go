package statestore_test

import (
	"context"
	"fmt"
	"testing"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

func benchEngine(b *testing.B) *statestore.Engine {
	e, err := statestore.Open(statestore.Config{Node: "node-1", Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	if err := e.Configure(context.Background(), testConfigure(1)); err != nil {
		b.Fatal(err)
	}
	return e
}

// Commits of 64 callers, synced: one sync serves all that wait.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		typ string
		op  *holdfastv1.Operation
	}{{"count", inc(1)}, {"votes", update("q", inc(1))}} {
		b.Run(c.typ, func(b *testing.B) {
			e := benchEngine(b)
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for n := 0; pb.Next(); n++ {
					if _, err := e.Commit(context.Background(), commitOf(c.typ, fmt.Sprint(n%100), "", c.op)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkGet(b *testing.B) {
	e := benchEngine(b)
	if _, err := e.Commit(context.Background(), commitOf("count", "k", "", inc(1))); err != nil {
		b.Fatal(err)
	}
	ent := entity("count", "k")
	for b.Loop() {
		if _, err := e.Get(ent); err != nil {
			b.Fatal(err)
		}
	}
}
