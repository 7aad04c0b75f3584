package linear

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

const (
	callerCount = 8
	keyCount    = 10
	// think is between two calls of a caller.
	think = 3 * time.Millisecond
	// deadline is what callers give the mesh, and patience how much longer they wait for its answer.
	deadline = 700 * time.Millisecond
	patience = 300 * time.Millisecond
	// persistence is how long a caller who wants an answer repeats a call.
	persistence = 25 * time.Second
	// repeatPause is between two attempts.
	repeatPause = 50 * time.Millisecond
)

func keyName(run string, k int) string { return fmt.Sprintf("%s-%d", run, k) }

// callers call until they are stopped.
type callers struct {
	history
	addresses []string
	run       string
	begun     time.Time
	stop      chan struct{}
	wg        sync.WaitGroup
	// success has each key's last success, in nanoseconds since the run began.
	success [keyCount]atomic.Int64
	// values numbers the values that are written.
	values atomic.Uint32
}

// caller is one of them.
type caller struct {
	*callers
	number int
	http   *http.Client
	rand   *mathrand.Rand
	// deadline of each call.
	deadline time.Duration
	// knows is what the caller last saw of each register, with its version.
	knows [keyCount]struct {
		register
		etag string
	}
}

func startCallers(run string, addresses []string, seed uint64) *callers {
	c := &callers{addresses: addresses, run: run, begun: time.Now(), stop: make(chan struct{})}
	for i := range callerCount {
		w := &caller{
			callers: c, number: i, rand: mathrand.New(mathrand.NewPCG(seed, uint64(i))), deadline: deadline,
			http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}},
		}
		c.wg.Go(func() {
			defer w.http.CloseIdleConnections()
			for !c.stopped() {
				w.call()
				select {
				case <-c.stop:
				case <-time.After(think):
				}
			}
		})
	}
	return c
}

func (c *callers) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// end stops the callers; those who repeat a call go on until they have their answer.
func (c *callers) end() {
	if !c.stopped() {
		close(c.stop)
	}
	c.wg.Wait()
}

// now is nanoseconds since the run began.
func (c *callers) now() int64 { return int64(time.Since(c.begun)) }

// call makes one operation of a random kind on a random register.
func (w *caller) call() {
	k := w.rand.IntN(keyCount)
	o := &operation{Caller: w.number, Key: keyName(w.run, k), Expected: w.knows[k].register}
	switch p := w.rand.IntN(100); {
	case p < 45:
		o.Kind = read
	case p < 75:
		o.Kind = write
	case p < 88 || w.knows[k].etag == "":
		o.Kind = compareAndSet
	default:
		o.Kind = ifMatch
	}
	if o.Kind != read {
		o.Value = w.values.Add(1)
	}
	etag := w.knows[k].etag
	once := ""
	if o.Kind != read && w.rand.IntN(2) == 0 {
		once = newID()
	}
	o.Called = w.now()
	o.Fate = w.attempt(o, once, etag)
	// Who sent an id may repeat the call until the answer is known.
	for doubt := o.Fate == unknown; once != "" && doubt && time.Duration(w.now()-o.Called) < persistence; {
		time.Sleep(repeatPause)
		// A refusal speaks of its own attempt; what became of the first is still unknown.
		if o.Fate = w.attempt(o, once, etag); o.Fate == refused {
			o.Fate = unknown
		}
		doubt = o.Fate == unknown
	}
	o.Returned = w.now()
	w.add(o)
	if o.Fate != answered {
		return
	}
	w.success[k].Store(o.Returned)
	if o.Kind != ifMatch || o.Set {
		w.knows[k].register, w.knows[k].etag = o.Got, o.ETag
	} else {
		w.knows[k].etag = ""
	}
}

func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// attempt sends the operation to a random address and says what the caller knows of it then.
func (w *caller) attempt(o *operation, once, etag string) fate {
	address := w.addresses[w.rand.IntN(len(w.addresses))]
	began := w.now()
	reply, err := w.send(o, address, once, etag)
	f := w.judge(o, reply, err)
	text := fmt.Sprintf("%.3f–%.3f %s %v", float64(began)/1e9, float64(w.now())/1e9, address, f)
	if reply != nil {
		text += " " + reply.Header.Get("Holdfast-Explain")
	}
	if f != answered {
		if err != nil {
			text += fmt.Sprintf(": %v", err)
		} else {
			text += fmt.Sprintf(": %d %s %s", reply.Status, reply.Header.Get("Holdfast-Outcome"), reply.Body)
		}
	}
	o.Attempts = append(o.Attempts, text)
	return f
}

func (w *caller) send(o *operation, address, once, etag string) (*rig.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.deadline+patience)
	defer cancel()
	method, path, body := http.MethodPost, "/v1/registers/"+o.Key, any(nil)
	switch o.Kind {
	case read:
		method = http.MethodGet
	case write, ifMatch:
		path, body = path+":write", map[string]any{"value": o.Value, "hold_ms": o.hold.Milliseconds()}
	case compareAndSet:
		path, body = path+":compareAndSet", map[string]any{"value": o.Value, "expected": o.Expected.Value}
	}
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, reader)
	if err != nil {
		return nil, err
	}
	// Without it net/http repeats no call by itself: an outcome is that of one attempt.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Grpc-Timeout", fmt.Sprintf("%dm", w.deadline.Milliseconds()))
	req.Header.Set("Holdfast-Explain", "1")
	if once != "" {
		req.Header.Set("Idempotency-Key", once)
	}
	if o.Kind == ifMatch {
		req.Header.Set("If-Match", etag)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, err
	}
	return &rig.Reply{Status: resp.StatusCode, Header: resp.Header, Body: data}, nil
}

// maxReply bounds a reply's body in bytes.
const maxReply = 64 << 10

// codeAlreadyExists is the status of a call that was applied before, whose reply was lost.
const codeAlreadyExists = 6

// judge reads a reply into the operation.
func (w *caller) judge(o *operation, r *rig.Reply, err error) fate {
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return refused
		}
		return unknown
	}
	switch {
	case r.Status == http.StatusOK:
		var reply struct {
			register
			Set      bool     `json:"set"`
			Register register `json:"register"`
		}
		if json.Unmarshal(r.Body, &reply) != nil {
			return unknown
		}
		o.Set, o.Got, o.ETag = o.Kind != read, reply.register, r.Header.Get("Etag")
		if o.Kind == compareAndSet {
			o.Set, o.Got = reply.Set, reply.Register
		}
		return answered
	case r.Status == http.StatusPreconditionFailed && o.Kind == ifMatch:
		return answered
	case r.Status == http.StatusConflict && statusCode(r.Body) == codeAlreadyExists:
		return applied
	}
	switch rig.OutcomeOf(r, nil) {
	case rig.Refused:
		return refused
	default:
		return unknown
	}
}

func statusCode(body []byte) int {
	var s struct {
		Code int `json:"code"`
	}
	_ = json.NewDecoder(strings.NewReader(string(body))).Decode(&s)
	return s.Code
}
