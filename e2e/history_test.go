package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	eventlogv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/eventlog/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// followCommand follows a cart by the command line.
func followCommand(t *testing.T, m *rig.Mesh, key string) *follower {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, "bin/holdfast"), "key", "history", cartType+"/"+key, "--follow", "-o", "json", "--data-dir", m.Data)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &follower{name: "key history --follow"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e struct {
				Sequence uint64 `json:"sequence"`
			}
			err := json.Unmarshal(lines.Bytes(), &e)
			f.note(e.Sequence, err)
		}
		f.note(0, fmt.Errorf("the command ended: %v", cmd.Wait()))
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	return f
}

// eventLog is a node's store's event log.
func eventLog(t *testing.T, m *rig.Mesh, node string) eventlogv1.EventLogClient {
	t.Helper()
	folder, err := m.RunFolder()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+filepath.Join(folder, node, "events.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return eventlogv1.NewEventLogClient(conn)
}

// followStore follows a cart at a node's store.
func followStore(t *testing.T, m *rig.Mesh, node, key string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := eventLog(t, m, node).Read(ctx, &eventlogv1.ReadRequest{Type: cartType, Key: key, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{name: "event log of " + node}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r, err := stream.Recv()
			if err != nil {
				f.note(0, err)
				return
			}
			for _, e := range r.GetEvents() {
				f.note(e.GetSequence(), nil)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// The command line shows what happened to a cart, from any event on, with payloads as the service's own messages.
func TestKeyHistory(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	must(t)(addItem(m, m.Ingress(1), key, "tea", 2))
	must(t)(addItem(m, m.Ingress(2), key, "pot", 1))
	must(t)(m.Do(http.MethodDelete, m.Ingress(3), "/v1/carts/"+key+"/items/pot", nil, nil))
	name := cartType + "/" + key
	out, err := m.Run("key", "history", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, want := range []string{"SEQUENCE", `cart.v1.ItemAdded     {"item":"tea","quantity":2}`, `cart.v1.ItemAdded     {"item":"pot","quantity":1}`, `cart.v1.ItemRemoved   {"item":"pot"}`} {
		if len(lines) != 4 || !strings.Contains(lines[i], want) {
			t.Fatalf("line %d lacks %q", i, want)
		}
	}
	if out, err = m.Run("key", "history", name, "--from", "3", "-o", "json"); err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, `"sequence":3`) {
		t.Errorf("from 3: %v %s", err, out)
	}
	if out, err = m.Run("key", "history", cartType+"/"+newKey(t)); err != nil || !strings.Contains(out, "No events") {
		t.Errorf("a cart that nobody touched: %v %s", err, out)
	}
	for name, want := range map[string]string{accountType + "/" + key: "not event_sourced", "no.SuchType/x": "no configured service"} {
		if _, err := m.Run("key", "history", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("history of %s: %v, want %q", name, err, want)
		}
	}
}

// Every store serves every cart's log, and refuses by the codes that its API promises.
func TestEventLog(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	for i := range 30 {
		must(t)(addItem(m, m.Ingress(1+i%nodes), key, "tea", 1))
	}
	for i := range nodes {
		f := followStore(t, m, fmt.Sprintf("node-%d", i+1), key)
		within(t, 10*time.Second, func() error { return f.reached(30) })
	}
	log := eventLog(t, m, "node-1")
	for typ, want := range map[string]codes.Code{accountType: codes.FailedPrecondition, "no.SuchType": codes.NotFound, "": codes.InvalidArgument} {
		stream, err := log.Read(t.Context(), &eventlogv1.ReadRequest{Type: typ, Key: key})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != want {
			t.Errorf("log of %q: %v, want %v", typ, err, want)
		}
	}
}
