package stateclient

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// wire is a connection that reads what it was made with.
type wire struct {
	net.Conn
	bytes.Reader
}

func (w *wire) Read(p []byte) (int, error) { return w.Reader.Read(p) }
func (w *wire) Close() error               { return nil }

// responses makes frames of a program: pieces of a length byte and that many bytes; a length of 255 is two bytes that
// follow.
func responses(program []byte) (out []byte) {
	for len(program) > 0 {
		n := int(program[0])
		program = program[1:]
		if n == 255 && len(program) >= 2 {
			n = int(binary.BigEndian.Uint16(program))
			program = program[2:]
		}
		n = min(n, len(program))
		out = binary.BigEndian.AppendUint32(out, uint32(n))
		out = append(out, program[:n]...)
		program = program[n:]
	}
	return out
}

func program(rs ...*storev1.Response) (out []byte) {
	for _, r := range rs {
		b, err := proto.Marshal(r)
		if err != nil {
			panic(err)
		}
		out = append(out, 255)
		out = binary.BigEndian.AppendUint16(out, uint16(len(b)))
		out = append(out, b...)
	}
	return out
}

// FuzzResponses is a store that answers anything to calls of every kind. No callback may be missed or told twice,
// nothing may panic, and the cache's books must balance.
func FuzzResponses(f *testing.F) {
	state := func(id uint64, key, version string) *storev1.Response {
		return &storev1.Response{Id: id, Result: &storev1.Response_State{State: stateOf(entity("t", key), version)}}
	}
	committed := func(id uint64, key, version string) *storev1.Response {
		return &storev1.Response{Id: id, Result: &storev1.Response_Committed{Committed: &storev1.Committed{State: stateOf(entity("t", key), version)}}}
	}
	failed := &storev1.Response{Id: 1, Error: &storev1.Error{Code: 14, Outcome: storev1.Outcome_OUTCOME_UNKNOWN}}
	begun := &storev1.Response{Id: 4, Result: &storev1.Response_Begun{Begun: &storev1.Begun{Token: "t"}}}
	f.Add(program(state(1, "a", "1"), state(0, "a", "2"), committed(3, "a", "3"), begun, state(5, "c", "1")), false)
	f.Add(program(state(0, "a", "2"), failed, state(2, "b", "1"), committed(3, "a", "3"), state(5, "c", "9")), false)
	f.Add(program(committed(1, "a", "1"), state(3, "a", "1"), &storev1.Response{Id: 4}, &storev1.Response{}), false)
	f.Add(program(state(1, "a", "1"), state(1, "a", "1"), state(99, "a", "1"), state(0, "z", "1")), true)
	f.Add([]byte{0, 0, 3, 1, 2}, false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, true)
	f.Fuzz(func(t *testing.T, in []byte, raw bool) {
		if !raw {
			in = responses(in)
		}
		c := &Client{opts: Options{
			CacheEntries: 3, CacheBytes: 3*entryOverhead + 50, Panicked: func(r any) { t.Errorf("panic: %v", r) },
		}.withDefaults()}
		w := &wire{}
		w.Reset(in)
		s := newSession(c, w)
		c.cur.Store(s)

		var mu sync.Mutex
		told := map[string]int{}
		tell := func(call string, v bool, err error) {
			mu.Lock()
			defer mu.Unlock()
			if told[call]++; v == (err != nil) {
				t.Errorf("%s: told a value: %v, and the error %v", call, v, err)
			}
		}
		read(c, "t", "a", true, time.Hour, func(st *storev1.State, err error) { tell("1", st != nil, err) })
		read(c, "t", "b", true, time.Hour, func(st *storev1.State, err error) { tell("2", st != nil, err) })
		c.Commit(commit("a"), time.Hour, func(m *storev1.Committed, err error) { tell("3", m != nil, err) })
		begin(c, "t", "b", "id", time.Hour, func(b *storev1.Begun, err error) { tell("4", b != nil, err) })
		ends := 0
		watched := func(st *storev1.State, err error) {
			mu.Lock()
			defer mu.Unlock()
			if ends > 0 || (st != nil) == (err != nil) {
				t.Errorf("the watch got %v, %v after %d ends", st, err, ends)
			}
			if err != nil {
				ends++
			}
		}
		c.Watch("t", "c", watched) // call 5
		s.take(nil, false)

		if err := s.read(); err == nil {
			t.Error("read ended without a reason")
		}
		s.cache.balance(t)
		s.fail()
		c.wg.Wait()
		for _, call := range []string{"1", "2", "3", "4"} {
			if told[call] != 1 {
				t.Errorf("call %s was told %d times", call, told[call])
			}
		}
		if ends != 1 {
			t.Errorf("the watch ended %d times", ends)
		}
	})
}

// balance checks what the cache counts.
func (c *cache) balance(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	live, left, size, idle, watches := 0, 0, 0, 0, 0
	for key, e := range c.entries {
		if e.key != key {
			t.Errorf("%v is kept as %v", e.key, key)
		}
		watches += len(e.watchers)
		if e.elem != nil {
			idle++
		}
		if got, want := e.elem != nil, e.phase == subscribed && len(e.watchers) == 0; got != want {
			t.Errorf("%v: idle %v, want %v", key, got, want)
		}
		if want := entryOverhead + len(key.typ) + len(key.key) + proto.Size(e.state); e.size != want {
			t.Errorf("%v: size %d, want %d", key, e.size, want)
		}
		if e.phase != leaving {
			live++
			size += e.size
		} else {
			left++
			if e.state != nil {
				t.Errorf("%v is leaving with a state", key)
			}
		}
	}
	if left != c.leaving {
		t.Errorf("counted %d leaving, there are %d", c.leaving, left)
	}
	if live != c.live || size != c.bytes || idle != c.idle.Len() || watches != c.watches {
		t.Errorf("counted %d live, %d bytes, %d idle, %d watches; there are %d, %d, %d, %d",
			c.live, c.bytes, c.idle.Len(), c.watches, live, size, idle, watches)
	}
	if c.idle.Len() > 0 && c.leaving < maxLeaving && (c.live > c.maxEntries || c.bytes > c.maxBytes) {
		t.Errorf("%d entries and %d bytes with something to evict", c.live, c.bytes)
	}
}
