package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// replicasView is what `key show --replicas -o json` says, as far as tests need it.
type replicasView struct {
	Copies []struct {
		Node  string          `json:"node"`
		Role  string          `json:"role"`
		Hash  string          `json:"hash"`
		Value json.RawMessage `json:"value"`
		Error string          `json:"error"`
		Seen  []struct {
			Node string `json:"node"`
			Upto uint64 `json:"upto"`
		} `json:"seen"`
	} `json:"copies"`
	Agreement struct {
		Agree    bool       `json:"agree"`
		Replicas int        `json:"replicas"`
		Groups   [][]string `json:"groups"`
		Summary  string     `json:"summary"`
	} `json:"agreement"`
}

func replicas(m *rig.Mesh, key string) (*replicasView, error) {
	out, err := m.Run("key", "show", presentationType+"/"+key, "--replicas", "-o", "json")
	if err != nil {
		return nil, err
	}
	v := &replicasView{}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", out, err)
	}
	return v, nil
}

// replicasAgree waits for all replicas to hold the same.
func replicasAgree(m *rig.Mesh, key string, want int) func() error {
	return func() error {
		v, err := replicas(m, key)
		switch {
		case err != nil:
			return err
		case !v.Agreement.Agree || v.Agreement.Replicas != want || v.Agreement.Summary != fmt.Sprintf("all %d replicas agree", want):
			return fmt.Errorf("%+v, want all %d to agree", v.Agreement, want)
		}
		return nil
	}
}

// telling makes a failed test say what each store holds of an entity, and what it counted of its replication.
func telling(t *testing.T, m *rig.Mesh, key string) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		out, err := m.Run("key", "show", presentationType+"/"+key, "--replicas")
		t.Logf("%s%v", out, err)
		for i := range nodes {
			r, err := m.GetSocket(fmt.Sprintf("node-%d/store-http.sock", i+1), "/metrics")
			if err != nil {
				t.Logf("node-%d: %v", i+1, err)
				continue
			}
			var lines []string
			for line := range strings.Lines(string(r.Body)) {
				if strings.HasPrefix(line, "holdfast_replication") && !strings.Contains(line, "_bucket") && !strings.HasSuffix(line, " 0\n") {
					lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "holdfast_replication_"))
				}
			}
			t.Logf("node-%d: %s", i+1, strings.Join(lines, ", "))
		}
	})
}

// partitioned cuts the mesh as the arguments say and sees to it that it is whole again after the test.
func partitioned(t *testing.T, m *rig.Mesh, groups ...string) {
	t.Helper()
	t.Cleanup(func() { healed(t, m) })
	out, err := m.Run(append([]string{"fault", "partition"}, groups...)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, "partition: ") || strings.Contains(out, "not so yet") {
		t.Errorf("fault partition says %q", out)
	}
}

func healed(t *testing.T, m *rig.Mesh) {
	t.Helper()
	if out, err := m.Run("fault", "heal"); err != nil || !strings.HasPrefix(out, "no fault") {
		t.Errorf("fault heal: %q, %v", out, err)
	}
}

// Two sides of an entity drift apart under a partition, as one can see, and nothing is lost when they meet again, though a
// store of one side was killed meanwhile.
func TestPartition(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	telling(t, m, key)
	must(t)(ask(m, m.Ingress(1), key, question))
	within(t, 20*time.Second, replicasAgree(m, key, nodes))

	partitioned(t, m, "node-1,node-2", "node-3,node-4,node-5,node-6")
	side := func(first, last int, votes int) []string {
		t.Helper()
		width := last - first + 1
		tally := rig.Each(6, votes, func(i int) (*rig.Reply, error) { return vote(m, m.Ingress(first+i%width), key, question) })
		if tally.Acked() != votes {
			t.Fatalf("nodes %d to %d: %v, want %d acknowledged", first, last, tally, votes)
		}
		return m.Ingresses()[first-1 : last]
	}
	left, right := side(1, 2, 60), side(3, 6, 90)
	within(t, 20*time.Second, agree(left, votesOf(m, key, question), exactly(60)))
	within(t, 20*time.Second, agree(right, votesOf(m, key, question), exactly(90)))

	within(t, 10*time.Second, func() error {
		v, err := replicas(m, key)
		if err != nil {
			return err
		}
		for _, g := range v.Agreement.Groups {
			slices.Sort(g)
		}
		got := fmt.Sprint(v.Agreement.Agree, v.Agreement.Groups)
		if want := "false [[node-3 node-4 node-5 node-6] [node-1 node-2]]"; got != want {
			return fmt.Errorf("key show says %s, want %s", got, want)
		}
		return nil
	})
	table, err := m.Run("key", "show", presentationType+"/"+key, "--replicas")
	if err != nil || !strings.Contains(table, "6 replicas hold 2 different states: ") {
		t.Errorf("the table does not tell that the sides differ (%v):\n%s", err, table)
	}
	t.Log(table)

	// A store that starts anew on its side stays on it.
	victim, err := m.Node("node-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(victim.StorePID); err != nil {
		t.Fatal(err)
	}
	restarted(t, m, "node-1", func(n rig.NodeStatus) int { return n.StorePID }, victim.StorePID)
	within(t, 30*time.Second, agree(left, votesOf(m, key, question), exactly(60)))
	side(1, 2, 20)
	within(t, 20*time.Second, agree(left, votesOf(m, key, question), exactly(80)))
	within(t, 20*time.Second, agree(right, votesOf(m, key, question), exactly(90)))
	status, err := m.Run("fault", "status", "-o", "json")
	var f struct {
		Groups  [][]string `json:"groups"`
		Waiting []string   `json:"waiting"`
	}
	if err := errors.Join(err, json.Unmarshal([]byte(status), &f)); err != nil || len(f.Groups) != 2 || len(f.Waiting) != 0 {
		t.Errorf("fault status: %s, %v", status, err)
	}

	start := time.Now()
	healed(t, m)
	within(t, 30*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(170)))
	t.Logf("equal everywhere %v after it was mended", time.Since(start).Round(time.Millisecond))
	within(t, 20*time.Second, replicasAgree(m, key, nodes))
}

func TestFaultRefusals(t *testing.T) {
	m := mesh(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"fault", "partition", "node-9"}, 1, `no node "node-9"`},
		{[]string{"fault", "partition", "node-1,node-1"}, 1, "named twice"},
		{[]string{"fault", "partition", "node-1,,node-2"}, 2, "want groups like"},
		{[]string{"fault", "partition"}, 2, "requires at least 1 arg"},
		{[]string{"fault", "status", "now"}, 2, "unknown command"},
	} {
		_, err := m.Run(c.args...)
		var failed *rig.CommandError
		if !errors.As(err, &failed) || failed.ExitCode() != c.code || !strings.Contains(failed.Stderr, c.want) {
			t.Errorf("%v: got %v, want exit code %d and %q", c.args, err, c.code, c.want)
		}
	}
	_, err := m.RunBare("fault", "heal", "--data-dir", t.TempDir())
	var failed *rig.CommandError
	if !errors.As(err, &failed) || failed.ExitCode() != 3 || !strings.Contains(failed.Stderr, "local mesh only") {
		t.Errorf("no mesh: got %v, want exit code 3 and the reason", err)
	}
}

// The gossip key changes twice under load: no store leaves, no write fails, and no key gets into a log.
func TestGossipKeyRotation(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	telling(t, m, key)
	folder, err := m.RunFolder()
	if err != nil {
		t.Fatal(err)
	}
	var used [][]byte
	remember := func() {
		t.Helper()
		file, err := os.ReadFile(filepath.Join(folder, "gossip.key"))
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, bytes.TrimSpace(file))
	}
	connected := func() error {
		for i := range nodes {
			node := fmt.Sprintf("node-%d", i+1)
			s, err := m.StoreStatus(node)
			if err != nil {
				return err
			}
			alive := 0
			for _, p := range s.GetPeers() {
				if p.GetState() == "alive" {
					alive++
				}
			}
			if alive != nodes-1 {
				return fmt.Errorf("%s has %d live peers: %v", node, alive, s.GetPeers())
			}
		}
		return nil
	}
	within(t, 30*time.Second, connected)
	remember()
	load := rig.StartLoad(6, 10*time.Millisecond, func(worker, _ int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+worker), key, question)
	})
	defer load.Stop()
	for range 2 {
		within(t, 30*time.Second, atLeast(load, load.Acked()+100))
		out, err := m.Run("gossip", "rotate")
		if err != nil {
			t.Fatal(err)
		}
		t.Log(strings.TrimSpace(out))
		remember()
		if err := connected(); err != nil {
			t.Errorf("after a rotation: %v", err)
		}
	}
	load.Stop()
	if load.Refused()+load.Unknown() > 0 {
		t.Errorf("writes failed meanwhile: %v", &load.Tally)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&load.Tally)))
	out, err := m.Run("gossip", "status", "-o", "json")
	var s struct {
		Keys   []string `json:"keys"`
		Stores []struct {
			Keys []string `json:"keys"`
		} `json:"stores"`
	}
	if err := errors.Join(err, json.Unmarshal([]byte(out), &s)); err != nil || len(s.Keys) != 1 || len(s.Stores) != nodes {
		t.Fatalf("gossip status: %s, %v", out, err)
	}
	for _, store := range s.Stores {
		if !slices.Equal(store.Keys, s.Keys) {
			t.Errorf("a store has the keys %v, want %v", store.Keys, s.Keys)
		}
	}
	if slices.EqualFunc(used[:1], used[1:2], bytes.Equal) || slices.EqualFunc(used[1:2], used[2:], bytes.Equal) {
		t.Error("the key has not changed")
	}
	logs, err := filepath.Glob(filepath.Join(m.Data, "logs", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, name := range logs {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range used {
			raw, err := base64.StdEncoding.DecodeString(string(k))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, k) || bytes.Contains(data, raw) || bytes.Contains(data, fmt.Appendf(nil, "%x", raw)) {
				t.Errorf("a gossip key is in %s", filepath.Base(name))
			}
		}
	}
}

// All stores are killed at once and started again: what they acknowledged is there.
func TestAllStoresKilled(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	telling(t, m, key)
	tally := rig.Each(12, 120, func(i int) (*rig.Reply, error) { return vote(m, m.Ingress(1+i%nodes), key, question) })
	if tally.Acked() != 120 {
		t.Fatalf("got %v, want 120 acknowledged", tally)
	}
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if err := m.Kill(n.StorePID); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range s.Nodes {
		restarted(t, m, n.Name, func(n rig.NodeStatus) int { return n.StorePID }, n.StorePID)
	}
	within(t, 40*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(120)))
	must(t)(vote(m, m.Ingress(4), key, question))
	within(t, 40*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(121)))
	within(t, 30*time.Second, replicasAgree(m, key, nodes))
}

// Who has no certificate of this mesh gets no word out of the port that stores have for each other.
func TestPeerPortWantsACertificate(t *testing.T) {
	m := mesh(t)
	folder, err := m.RunFolder()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(folder, "mesh.json"))
	if err != nil {
		t.Fatal(err)
	}
	var topology struct {
		Nodes []struct {
			Peer string `json:"peer"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(data, &topology); err != nil || len(topology.Nodes) != nodes {
		t.Fatalf("mesh.json: %v, %s", err, data)
	}
	for _, n := range topology.Nodes {
		nc, err := net.DialTimeout("tcp", n.Peer, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
		// The name is not looked at: it is the store that refuses.
		c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		answer := make([]byte, 1)
		if n, err := c.Read(answer); err == nil {
			t.Errorf("answered %d bytes to who has no certificate", n)
		} else if !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("refused with %v, want certificate required", err)
		}
		c.Close()
	}
	for i := range nodes {
		info, err := os.Stat(filepath.Join(folder, fmt.Sprintf("node-%d", i+1), "identity.pem"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("certificate of node-%d: %v, %v, want mode 0600", i+1, info, err)
		}
	}
}
