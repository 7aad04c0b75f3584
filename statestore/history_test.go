package statestore_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/eventlog"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

// TestHistoryAtAnyStore: what one store commits is read at another, and a reading there that follows sees it come.
func TestHistoryAtAnyStore(t *testing.T) {
	etcd := strongtest.New()
	c := testConfigure(1)
	c.Types = append(c.Types, &configv1.EntityType{
		Type: "cart", Model: configv1.Model_MODEL_EVENT_SOURCED, Consistency: configv1.Consistency_CONSISTENCY_STRONG,
	})
	store := func(name string) *statestore.Engine {
		e := open(t, statestore.Config{Node: name, Dir: t.TempDir()})
		e.Connect(statestore.Links{Committer: etcd.Store(name)})
		if err := e.Configure(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return e
	}
	owner, other := store("node-1"), store("node-2")
	cart := &storev1.Entity{Type: "cart", Key: "ada"}
	add := func(n int) {
		t.Helper()
		caller := owner.NewCaller()
		defer owner.Gone(caller)
		call := func(r *storev1.Request) *storev1.Response {
			t.Helper()
			r.Id = 1
			resp := owner.StrongCall(t.Context(), caller, false, r)
			if resp.GetError() != nil {
				t.Fatal(resp.GetError())
			}
			return resp
		}
		begun := call(&storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: cart, TimeoutMs: 5000}}}).GetBegun()
		a := &holdfastv1.AppendEvents{}
		for range n {
			a.Events = append(a.Events, &holdfastv1.Event{Type: "ItemAdded", Payload: []byte("tea")})
		}
		call(&storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
			Entity: cart, Token: begun.GetToken(), TimeoutMs: 5000,
			Operations: []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Append{Append: a}}},
		}}})
	}
	add(1)
	add(2)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := uint64(0)
	err := other.History(ctx, eventlog.History{Type: "cart", Key: "ada", Follow: true, Send: func(events []*holdfastv1.Event, last uint64) error {
		for _, e := range events {
			if seen++; e.GetSequence() != seen || e.GetType() != "ItemAdded" {
				t.Errorf("got %v, want event %d", e, seen)
			}
		}
		switch {
		case seen == 3 && last == 3:
			add(1)
		case seen == 4:
			cancel()
		}
		return nil
	}})
	if seen != 4 || ctx.Err() == nil {
		t.Errorf("read up to %d: %v", seen, err)
	}

	none := func([]*holdfastv1.Event, uint64) error { return nil }
	for name, r := range map[string]struct {
		typ, key string
		code     codes.Code
	}{
		"no such type":          {"cat", "ada", codes.NotFound},
		"another model":         {"account", "ada", codes.FailedPrecondition},
		"another consistency":   {"count", "ada", codes.FailedPrecondition},
		"no key":                {"cart", "", codes.InvalidArgument},
		"nobody ever wrote one": {"cart", "eve", codes.OK},
	} {
		err := other.History(t.Context(), eventlog.History{Type: r.typ, Key: r.key, Send: none})
		if r.code == codes.OK && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if r.code != codes.OK {
			wantError(t, name, err, r.code, notApplied, "")
		}
	}
}

// TestHistoryWithoutEtcd: a store that has none says so.
func TestHistoryWithoutEtcd(t *testing.T) {
	e := open(t, statestore.Config{Dir: t.TempDir()})
	c := testConfigure(1)
	c.Types = append(c.Types, &configv1.EntityType{
		Type: "cart", Model: configv1.Model_MODEL_EVENT_SOURCED, Consistency: configv1.Consistency_CONSISTENCY_STRONG,
	})
	if err := e.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	err := e.History(t.Context(), eventlog.History{Type: "cart", Key: "ada"})
	wantError(t, "history", err, codes.Unavailable, notApplied, "etcd")
}
