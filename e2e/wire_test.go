package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// frame is a gRPC message on the wire.
func frame(flag byte, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(payload)))
	return append(head, payload...)
}

// Broken gRPC messages are refused with a status, and no Envoy dies of them.
func TestMalformed(t *testing.T) {
	m := mesh(t)
	before := envoys(t, m)
	key := newKey(t)
	good, err := proto.Marshal(&qav1.VoteRequest{Presentation: key, Question: question})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()

	whole := func(body []byte) func() io.Reader { return func() io.Reader { return bytes.NewReader(body) } }
	trials := map[string]struct {
		body   func() io.Reader
		header http.Header
		// good says that the call is to succeed.
		good bool
	}{
		"good":             {body: whole(frame(0, good)), good: true},
		"byte by byte":     {body: func() io.Reader { return &byteByByte{frame(0, good)} }, good: true},
		"empty body":       {body: whole(nil)},
		"truncated frame":  {body: whole(frame(0, good)[:8])},
		"truncated head":   {body: whole([]byte{0, 0})},
		"4 GiB declared":   {body: whole([]byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3})},
		"flag 2":           {body: whole(frame(2, good))},
		"compressed alone": {body: whole(frame(1, good))},
		"unknown encoding": {body: whole(frame(1, good)), header: http.Header{"Grpc-Encoding": {"snappy"}}},
		"no gzip":          {body: whole(frame(1, good)), header: http.Header{"Grpc-Encoding": {"gzip"}}},
		"no protobuf":      {body: whole(frame(0, []byte{0xff, 0xff, 0xff}))},
		"no key":           {body: whole(frame(0, nil))},
	}
	for _, name := range slices.Sorted(maps.Keys(trials)) {
		trial := trials[name]
		for _, address := range []string{m.Gateway(), m.Ingress(2)} {
			code, text := callRaw(t, transport, address, trial.body(), trial.header)
			if trial.good && code != "0" || !trial.good && (code == "0" || code == "") {
				t.Errorf("%s at %s: grpc-status %q (%s)", name, address, code, text)
			}
		}
	}
	if after := envoys(t, m); !maps.Equal(before, after) {
		t.Errorf("Envoys were %v, are %v: one was restarted", before, after)
	}
	within(t, 10*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(4)))
}

// callRaw posts a body as a gRPC call and returns its status, wherever that came.
func callRaw(t *testing.T, transport http.RoundTripper, address string, body io.Reader, header http.Header) (code, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/qa.v1.Questions/Vote", body)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err.Error()
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		return "", err.Error()
	}
	if code = resp.Trailer.Get("Grpc-Status"); code == "" {
		code = resp.Header.Get("Grpc-Status")
	}
	return code, resp.Status + " " + resp.Trailer.Get("Grpc-Message") + resp.Header.Get("Grpc-Message")
}

// byteByByte reads one byte at a time, so that each becomes a DATA frame of its own.
type byteByByte struct{ left []byte }

func (o *byteByByte) Read(p []byte) (int, error) {
	if len(o.left) == 0 {
		return 0, io.EOF
	}
	p[0] = o.left[0]
	o.left = o.left[1:]
	return 1, nil
}

// Callers that go away at any moment break nothing: what they wrote is there or not, once.
func TestCallersGoAway(t *testing.T) {
	m := mesh(t)
	before := envoys(t, m)
	key := newKey(t)
	tally := &rig.Tally{}
	for i := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(6*time.Millisecond))))
		_, err := qav1.NewQuestionsClient(dial(t, m.Ingress(1+i%nodes))).Vote(ctx, &qav1.VoteRequest{Presentation: key, Question: question})
		cancel()
		if err == nil {
			tally.Add(&rig.Reply{Status: http.StatusOK}, nil)
			continue
		}
		if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Canceled {
			t.Errorf("call %d: %v", i, err)
		}
		tally.Add(nil, errors.New("gone"))
	}
	t.Log(tally)
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(tally)))
	if after := envoys(t, m); !maps.Equal(before, after) {
		t.Errorf("Envoys were %v, are %v: one was restarted", before, after)
	}
}

// A paused store makes its node slow, not wrong: what was refused was not applied.
func TestStorePaused(t *testing.T) {
	m := mesh(t)
	key, account := newKey(t), newKey(t)
	must(t)(deposit(m, m.Gateway(), account, 10_000))
	l := &ledger{sum: 10_000}
	owner, err := m.Node(ownerOf(t, m, accountType, account))
	if err != nil {
		t.Fatal(err)
	}
	voting := rig.StartLoad(6, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return m.Do("POST", m.Ingress(1+(worker+n)%nodes), "/v1/presentations/"+key+"/votes", map[string]string{"question": question}, briefly)
	})
	defer voting.Stop()
	money := rig.StartLoad(4, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) { return move(m, l, account, worker, n) })
	defer money.Stop()
	within(t, 30*time.Second, atLeast(money, 50))
	if err := m.Pause(owner.StorePID); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Resume(owner.StorePID) }()
	// Longer than its lease: another store takes the account over.
	at := money.Acked()
	within(t, 60*time.Second, atLeast(money, at+30))
	if err := m.Resume(owner.StorePID); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, atLeast(money, money.Acked()+50))
	within(t, 30*time.Second, atLeast(voting, voting.Acked()+100))
	voting.Stop()
	money.Stop()
	t.Logf("votes: %v", &voting.Tally)
	t.Logf("money: %v", &money.Tally)
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&voting.Tally)))
	within(t, 20*time.Second, agree(m.Ingresses(), balanceOf(m, account), l.check))
}

// briefly is a deadline of a second.
var briefly = http.Header{"Grpc-Timeout": {"1S"}}

// envoys are the process ids of all Envoys.
func envoys(t *testing.T, m *rig.Mesh) map[string]int {
	t.Helper()
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{"gateway": s.Gateway.EnvoyPID}
	for _, n := range s.Nodes {
		all[n.Name] = n.EnvoyPID
	}
	return all
}
