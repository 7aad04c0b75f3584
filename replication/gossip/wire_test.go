package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

var update = flag.Bool("update", false, "write the fixtures of the newest version; never those of older ones")

// messages has one of every kind, as the newest version writes it.
func messages() map[string]*replicationv1.Message {
	e := fresh(1)
	d := e.Add("t", "k", 3)
	c := &crdt.Context{}
	c.Add(crdt.Dot{Replica: 7, Seq: 1})
	c.Add(crdt.Dot{Replica: 7, Seq: 4})
	seen := c.Append(nil)
	two := uint32(2)
	return map[string]*replicationv1.Message{
		"hello":       {Kind: &replicationv1.Message_Hello{Hello: &replicationv1.Hello{Version: gossip.WireVersion, Node: "node-1", Replica: 9, OldestVersion: two}}},
		"deltas":      gossip.DeltasMessage([]*replicationv1.Delta{d, {Type: "t", Key: "l", State: d.State, Fill: seen}}, gossip.WireVersion, true),
		"ack":         {Kind: &replicationv1.Message_Ack{Ack: &replicationv1.Ack{Seen: []*replicationv1.SlotSeen{{Type: "t", Slot: 5, Context: seen}}}}},
		"identities":  {Kind: &replicationv1.Message_Identities{Identities: &replicationv1.Identities{Known: []*replicationv1.Identity{{Replica: 7, Node: "node-2", Retired: true}, {Replica: 9, Node: "node-1"}}, Settled: []uint64{8}}}},
		"groups":      {Kind: &replicationv1.Message_Groups{Groups: &replicationv1.Groups{Type: "t", Epoch: 3, Groups: []*replicationv1.GroupHash{{Group: 1, Hash: 77}}}}},
		"slot_hashes": {Kind: &replicationv1.Message_SlotHashes{SlotHashes: &replicationv1.SlotHashes{Type: "t", Slots: []*replicationv1.SlotHash{{Slot: 64, Hash: 5}}, Groups: []uint32{1}}}},
		"slot_offer":  {Kind: &replicationv1.Message_SlotOffer{SlotOffer: &replicationv1.SlotOffer{Type: "t", Slot: 64, Round: 2, Context: seen, Empty: true, Buckets: []*replicationv1.BucketHash{{Bucket: 63, Hash: 8}}, Announced: 4, Retired: []uint64{5}}}},
		"slot_keys":   {Kind: &replicationv1.Message_SlotKeys{SlotKeys: &replicationv1.SlotKeys{Type: "t", Slot: 64, Round: 2, Context: seen, Buckets: []uint32{63}, Keys: []*replicationv1.KeyHash{{Key: "k", Hash: 6}}, More: true, Announced: 4, Retired: []uint64{5}}}},
		"slot_states": {Kind: &replicationv1.Message_SlotStates{SlotStates: &replicationv1.SlotStates{Type: "t", Slot: 64, Round: 2, Part: 1, Fill: seen, States: []*replicationv1.Delta{d}, Absent: []string{"a"}, Want: []string{"w"}, Done: true, Complete: seen, Announced: 4, Retired: []uint64{5}}}},
		"interest":    {Kind: &replicationv1.Message_Interest{Interest: &replicationv1.Interest{Type: "t", Slots: []uint32{1, 2}, On: true}}},
		"rights_request": {Kind: &replicationv1.Message_RightsRequest{RightsRequest: &replicationv1.RightsRequest{
			Type: "t", Key: "k", Replica: 9, Amount: 10,
		}}},
	}
}

// Messages of all versions still say the same: each fixture decodes without a field that is not known and encodes to the
// same bytes, what is written today is the newest version's fixture, and its deltas are still understood.
func TestWireFixtures(t *testing.T) {
	if *update {
		for name, m := range messages() {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join("testdata", "wire", "v3", name+".bin"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, version := range []string{"v2", "v3"} {
		files, err := filepath.Glob(filepath.Join("testdata", "wire", version, "*.bin"))
		if err != nil || len(files) != len(messages()) {
			t.Fatalf("%s: %d fixtures, want %d: %v", version, len(files), len(messages()), err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".bin")
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m := &replicationv1.Message{}
			if err := proto.Unmarshal(want, m); err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if len(m.ProtoReflect().GetUnknown()) > 0 || m.GetKind() == nil {
				t.Errorf("%s: it has what is not known any more", file)
			}
			got, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: encodes to %x, want %x (%v)", file, got, want, err)
			}
			if version == "v3" && !proto.Equal(m, messages()[name]) {
				t.Errorf("%s: today's message is another one: %v", file, messages()[name])
			}
			if name == "deltas" {
				e := fresh(2)
				if err := e.Merge(t.Context(), gossip.Unpack(m.GetDeltas())); err != nil || e.Values()["t/k"] != 3 || e.Values()["t/l"] != 3 {
					t.Errorf("%s: merged to %v, %v", file, e.Values(), err)
				}
			}
		}
	}
}

func TestDeltasOfAllVersions(t *testing.T) {
	e := fresh(1)
	deltas := []*replicationv1.Delta{e.Add("t", "a", 1), e.Add("t", "b", 1), {Type: "u", Key: "c"}, e.Add("t", "d", 1)}
	for version := uint32(gossip.OldestWireVersion); version <= gossip.WireVersion; version++ {
		m := gossip.DeltasMessage(deltas, version, true)
		if (len(m.GetDeltas().GetPacked()) > 0) != (version >= 3) || !m.GetDeltas().GetAck() {
			t.Errorf("version %d: %v", version, m)
		}
		got := gossip.Unpack(m.GetDeltas())
		if len(got) != len(deltas) {
			t.Fatalf("version %d: %d deltas, want %d", version, len(got), len(deltas))
		}
		for i := range got {
			if !proto.Equal(got[i], deltas[i]) {
				t.Errorf("version %d: delta %d is %v, want %v", version, i, got[i], deltas[i])
			}
		}
	}
}

// tape is a stream on which the peer says what is on the tape, and then nothing until it is closed.
type tape struct {
	in   [][]byte
	over chan struct{}
	once *sync.Once
}

func newTape(in ...[]byte) *tape { return &tape{in, make(chan struct{}), &sync.Once{}} }

func (c *tape) Send(*replicationv1.Message) error { return nil }

func (c *tape) Close() error {
	c.once.Do(func() { close(c.over) })
	return nil
}

func (c *tape) Recv() (*replicationv1.Message, error) {
	if len(c.in) == 0 {
		<-c.over
		return nil, io.EOF
	}
	m := &replicationv1.Message{}
	err := proto.Unmarshal(c.in[0], m)
	c.in = c.in[1:]
	return m, err
}

func TestGreet(t *testing.T) {
	self := &replicationv1.Hello{Version: 3, OldestVersion: 2, Node: "me", Replica: 7}
	var other *gossip.VersionError
	for name, c := range map[string]struct {
		first   *replicationv1.Hello
		version uint32 // 0: refused
		refused bool   // for its version
	}{
		"a peer":              {&replicationv1.Hello{Version: 3, OldestVersion: 2, Node: "you", Replica: 8}, 3, false},
		"an older version":    {&replicationv1.Hello{Version: 2, OldestVersion: 2, Node: "you", Replica: 8}, 2, false},
		"a later version":     {&replicationv1.Hello{Version: 9, OldestVersion: 3, Node: "you", Replica: 8}, 3, false},
		"one too old":         {&replicationv1.Hello{Version: 1, Node: "you", Replica: 8}, 0, true},
		"one too new":         {&replicationv1.Hello{Version: 9, OldestVersion: 4, Node: "you", Replica: 8}, 0, true},
		"no version":          {&replicationv1.Hello{Node: "you", Replica: 8}, 0, false},
		"no name":             {&replicationv1.Hello{Version: 3, Replica: 8}, 0, false},
		"no replica identity": {&replicationv1.Hello{Version: 3, Node: "you"}, 0, false},
		"own name":            {&replicationv1.Hello{Version: 3, Node: "me", Replica: 8}, 0, false},
		"own replica":         {&replicationv1.Hello{Version: 3, Node: "you", Replica: 7}, 0, false},
		"no hello":            {nil, 0, false},
	} {
		m := &replicationv1.Message{Kind: &replicationv1.Message_Deltas{}}
		if c.first != nil {
			m.Kind = &replicationv1.Message_Hello{Hello: c.first}
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		_, version, err := gossip.Greet(context.Background(), newTape(b), self)
		if version != c.version || (err == nil) != (c.version > 0) || errors.As(err, &other) != c.refused {
			t.Errorf("%s: version %d, %v", name, version, err)
		}
	}
	ended := newTape()
	_ = ended.Close()
	if _, _, err := gossip.Greet(context.Background(), ended, self); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that ends: %v", err)
	}
}

// FuzzStream hands whatever comes from outside to a live stream: no panic, and the store goes on. Package rounds has the
// same for what is deeper in a round.
func FuzzStream(f *testing.F) {
	hello, err := proto.Marshal(&replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: &replicationv1.Hello{Version: 3, OldestVersion: 2, Node: "node-2", Replica: 8}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range messages() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	m, err := sim.Start(simnet.New(1, calm), 1, gossip.Config{
		Node: node(1), Replica: 1, Insecure: true, Engine: fresh(1), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(m.Crash)
	m.Node.Configure(configuration(1, 1, 2))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if proto.Unmarshal(first, &replicationv1.Message{}) != nil || proto.Unmarshal(second, &replicationv1.Message{}) != nil {
			return
		}
		for range 2 {
			c := newTape(hello, first, second, first)
			time.AfterFunc(time.Millisecond, func() { _ = c.Close() })
			_ = m.Node.Accept(t.Context(), c)
		}
	})
}

func TestParseKeys(t *testing.T) {
	if k, err := gossip.ParseKeys(gossip.NewKeyFile()); err != nil || len(k) != 1 || len(k[0]) != 32 {
		t.Errorf("new key file: %d keys, %v", len(k), err)
	}
	two := string(gossip.NewKeyFile()) + "\n" + string(gossip.NewKeyFile())
	if k, err := gossip.ParseKeys([]byte(two)); err != nil || len(k) != 2 {
		t.Errorf("two keys: %d, %v", len(k), err)
	}
	for _, bad := range []string{"", "\n", "short", "!!!", "c2hvcnQ="} {
		if _, err := gossip.ParseKeys([]byte(bad)); err == nil || bad == "!!!" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
