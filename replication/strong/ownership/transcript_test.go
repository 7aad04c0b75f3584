package ownership

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// TestTranscripts runs testdata, of these commands; the answer to a request is given by its number.
//
//	store [ttl=2s] [home=h]       a new machine of node "a"
//	next at=0s                    the lease's next request
//	done at=0s n=1 [lease=7] [ttl=2s] [key=(value,created,lease)] [gone|lost]
//	claim slot=1                  the first request of a claim
//	claimed at=0s n=1 [key=(value,created,lease)] [gone|lost]
//	held at=0s slot=1 epoch=5
//	disown slot=1 epoch=5
//	close; leave at=0s
//
// With -rewrite they are written anew: only commit the changes if you understand what caused them.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var m *Machine
		var sent []Request
		hand := func(r Request) string {
			sent = append(sent, r)
			return fmt.Sprintf("%d: %s\n", len(sent), r)
		}
		step := func(s Step) string {
			switch {
			case s.Request.Kind != None:
				return hand(s.Request)
			case s.Err != nil:
				return fmt.Sprintf("refused: %v%s\n", s.Err, lost(s.Lost))
			}
			return fmt.Sprintf("owner %s epoch %d\n", s.Owner, s.Epoch)
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var at, ttl time.Duration
			var n, slot int
			var epoch, lease int64
			scan := func(name string, to *time.Duration) {
				if d.HasArg(name) {
					var s string
					d.ScanArgs(t, name, &s)
					v, err := time.ParseDuration(s)
					if err != nil {
						d.Fatalf(t, "%s: %v", name, err)
					}
					*to = v
				}
			}
			scan("at", &at)
			scan("ttl", &ttl)
			d.MaybeScanArgs(t, "n", &n)
			d.MaybeScanArgs(t, "slot", &slot)
			d.MaybeScanArgs(t, "epoch", &epoch)
			d.MaybeScanArgs(t, "lease", &lease)
			answer := func() Answer {
				a := Answer{Lease: lease, TTL: ttl}
				switch {
				case d.HasArg("gone"):
					a.Err = fmt.Errorf("etcd: %w", ErrLeaseGone)
				case d.HasArg("lost"):
					a.Err = errors.New("no answer")
				case d.HasArg("key"):
					d.ScanArgs(t, "key", &a.Key.Value, &a.Key.Created, &a.Key.Lease)
				}
				return a
			}
			id := fenced.Slot{Type: "t", Number: uint32(slot)}
			switch d.Cmd {
			case "store":
				cfg := Config{Node: "a", TTL: max(ttl, MinTTL)}
				d.MaybeScanArgs(t, "home", &cfg.Home)
				m, sent = New(cfg), nil
				return ""
			case "next":
				req, wait := m.Next(at)
				if req.Kind == None {
					return fmt.Sprintf("nothing for %s\n", wait)
				}
				return hand(req)
			case "done":
				if n := m.Done(at, sent[n-1], answer()); n > 0 {
					return strings.TrimSpace(lost(n)) + "\n"
				}
				return ""
			case "claim":
				return step(m.Claim(id))
			case "claimed":
				return step(m.Claimed(at, sent[n-1], answer()))
			case "held":
				return fmt.Sprintln(m.Held(at, id, epoch))
			case "disown":
				m.Disown(id, epoch)
				return ""
			case "close":
				m.Close()
				return ""
			case "leave":
				m.Leave(at)
				return ""
			}
			d.Fatalf(t, "unknown command")
			return ""
		})
	})
}

func lost(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d claims lost)", n)
}
