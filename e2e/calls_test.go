package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

const (
	presentationType = "qa.Presentation"
	accountType      = "bank.Account"
	pageType         = "visits.Page"
)

var keys atomic.Int64

// newKey is an entity key that no other test uses.
func newKey(t *testing.T) string {
	return fmt.Sprintf("%s-%d", t.Name(), keys.Add(1))
}

func ask(m *rig.Mesh, address, presentation, question string) (*rig.Reply, error) {
	return m.Post(address, "/v1/presentations/"+url.PathEscape(presentation)+"/questions", map[string]string{"question": question})
}

func vote(m *rig.Mesh, address, presentation, question string) (*rig.Reply, error) {
	return m.Post(address, "/v1/presentations/"+url.PathEscape(presentation)+"/votes", map[string]string{"question": question})
}

// votes reads a presentation's questions with their votes.
func votes(m *rig.Mesh, address, presentation string) (map[string]int, error) {
	r, err := ok(m.Get(address, "/v1/presentations/"+url.PathEscape(presentation)))
	if err != nil {
		return nil, err
	}
	var p struct {
		Questions map[string]int `json:"questions"`
	}
	return p.Questions, r.JSON(&p)
}

func deposit(m *rig.Mesh, address, account string, cents int64) (*rig.Reply, error) {
	return m.Post(address, "/v1/accounts/"+url.PathEscape(account)+":deposit", map[string]int64{"amount_cents": cents})
}

func withdraw(m *rig.Mesh, address, account string, cents int64) (*rig.Reply, error) {
	return m.Post(address, "/v1/accounts/"+url.PathEscape(account)+":withdraw", map[string]int64{"amount_cents": cents})
}

func balance(m *rig.Mesh, address, account string) (int64, error) {
	return cents(m.Get(address, "/v1/accounts/"+url.PathEscape(account)))
}

// cents decodes a bank.v1.Balance, whose int64 is a string in protobuf's JSON.
func cents(r *rig.Reply, err error) (int64, error) {
	if r, err = ok(r, err); err != nil {
		return 0, err
	}
	var b struct {
		Cents json.Number `json:"balance_cents"`
	}
	if err := r.JSON(&b); err != nil {
		return 0, err
	}
	if b.Cents == "" {
		return 0, fmt.Errorf("no balance_cents in %s", r.Body)
	}
	return strconv.ParseInt(b.Cents.String(), 10, 64)
}

func visit(m *rig.Mesh, address, page string) (*rig.Reply, error) {
	return m.Post(address, "/v1/pages/"+url.PathEscape(page)+":visit", map[string]string{})
}

func visits(m *rig.Mesh, address, page string) (int, error) {
	r, err := ok(m.Get(address, "/v1/pages/"+url.PathEscape(page)))
	if err != nil {
		return 0, err
	}
	var v struct {
		Visits int `json:"visits"`
	}
	return v.Visits, r.JSON(&v)
}

// ok makes an error of every answer but 200.
func ok(r *rig.Reply, err error) (*rig.Reply, error) {
	if err != nil {
		return nil, err
	}
	if r.Status != 200 {
		return nil, fmt.Errorf("status %d: %s", r.Status, r.Body)
	}
	return r, nil
}

// must is ok for calls that the test can't go on without.
func must(t *testing.T) func(*rig.Reply, error) *rig.Reply {
	t.Helper()
	return func(r *rig.Reply, err error) *rig.Reply {
		t.Helper()
		r, err = ok(r, err)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// agree waits until a read at every address gives a value that check accepts, the same everywhere.
func agree[V comparable](addresses []string, read func(address string) (V, error), check func(V) error) func() error {
	return func() error {
		var first V
		for i, address := range addresses {
			v, err := read(address)
			if err != nil {
				return fmt.Errorf("read at %s: %w", address, err)
			}
			if err := check(v); err != nil {
				return fmt.Errorf("at %s: %w", address, err)
			}
			if i == 0 {
				first = v
			} else if v != first {
				return fmt.Errorf("%s has %v, %s has %v", address, v, addresses[0], first)
			}
		}
		return nil
	}
}

// votesOf reads one question's votes.
func votesOf(m *rig.Mesh, presentation, question string) func(address string) (int, error) {
	return func(address string) (int, error) {
		all, err := votes(m, address, presentation)
		return all[question], err
	}
}

// counted accepts what a tally allows: acked ≤ value ≤ acked + unknown.
func counted(t *rig.Tally) func(int) error {
	return func(v int) error {
		if low, high := t.Acked(), t.Acked()+t.Unknown(); v < low || v > high {
			return fmt.Errorf("value is %d, want %d to %d: %v", v, low, high, t)
		}
		return nil
	}
}

// exactly accepts one value.
func exactly[V comparable](want V) func(V) error {
	return func(v V) error {
		if v != want {
			return fmt.Errorf("value is %v, want %v", v, want)
		}
		return nil
	}
}

var dialed struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// dial returns a gRPC connection to an address, one for all tests: ports are not used again within a run.
func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	dialed.mu.Lock()
	defer dialed.mu.Unlock()
	if c := dialed.conns[address]; c != nil {
		return c
	}
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if dialed.conns == nil {
		dialed.conns = map[string]*grpc.ClientConn{}
	}
	dialed.conns[address] = c
	return c
}
