package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	eventlogv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/eventlog/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// eventLog is a store's.
type eventLog struct {
	eventlogv1.UnimplementedEventLogServer
	read func(*eventlogv1.ReadRequest, grpc.ServerStreamingServer[eventlogv1.ReadResponse]) error
}

func (l eventLog) Read(r *eventlogv1.ReadRequest, s grpc.ServerStreamingServer[eventlogv1.ReadResponse]) error {
	return l.read(r, s)
}

// events are those from first to last, in one message.
func events(first, last uint64) *eventlogv1.ReadResponse {
	m := &eventlogv1.ReadResponse{LastSequence: last}
	for n := first; n <= last; n++ {
		payload, _ := proto.Marshal(&eventlogv1.ReadRequest{From: n})
		m.Events = append(m.Events, &holdfastv1.Event{
			Sequence: n, Type: "holdfast.eventlog.v1.ReadRequest", Payload: payload, Time: timestamppb.New(time.Unix(int64(n), 0)),
		})
	}
	return m
}

// historyPlane is a control plane that knows these stores by their event logs; a nil one is down.
func historyPlane(t *testing.T, logs ...func(*eventlogv1.ReadRequest, grpc.ServerStreamingServer[eventlogv1.ReadResponse]) error) *plane {
	t.Helper()
	dir, err := os.MkdirTemp("", "history")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range []protoreflect.FileDescriptor{
		timestamppb.File_google_protobuf_timestamp_proto, holdfastv1.File_holdfast_v1_contract_proto, eventlogv1.File_holdfast_eventlog_v1_eventlog_proto,
	} {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	v := &view{
		sockets: map[string]string{},
		types: map[string]*configv1.EntityType{
			"cart.Cart": {Type: "cart.Cart", Model: configv1.Model_MODEL_EVENT_SOURCED},
			"bank":      {Type: "bank", Model: configv1.Model_MODEL_VALUE},
		},
		descriptors: map[string][]*resolve.Descriptors{"cart.Cart": {{Set: set}}},
	}
	for i, read := range logs {
		name := fmt.Sprintf("node-%d", i+1)
		v.sockets[name] = filepath.Join(dir, name, "store.sock")
		if read == nil {
			continue
		}
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", mesh.EventLogSocket(v.sockets[name]))
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer(grpc.WaitForHandlers(true))
		eventlogv1.RegisterEventLogServer(s, eventLog{read: read})
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		t.Cleanup(func() { s.Stop(); <-done })
	}
	p := &plane{}
	p.view.Store(v)
	return p
}

type eventStream = grpc.ServerStreamingServer[eventlogv1.ReadResponse]

func TestHistory(t *testing.T) {
	whole := func(r *eventlogv1.ReadRequest, s eventStream) error { return s.Send(events(max(r.GetFrom(), 1), 5)) }
	empty := func(_ *eventlogv1.ReadRequest, s eventStream) error { return s.Send(&eventlogv1.ReadResponse{}) }
	refuses := func(code codes.Code) func(*eventlogv1.ReadRequest, eventStream) error {
		return func(*eventlogv1.ReadRequest, eventStream) error { return status.Error(code, "because") }
	}
	breaks := func(r *eventlogv1.ReadRequest, s eventStream) error {
		if r.GetFrom() > 2 {
			return status.Error(codes.Unavailable, "breaks")
		}
		if err := s.Send(events(max(r.GetFrom(), 1), 2)); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "breaks")
	}
	for name, c := range map[string]struct {
		logs []func(*eventlogv1.ReadRequest, eventStream) error
		path string
		code int
		// want are the sequences.
		want  string
		error string
	}{
		"all":                   {logs: logsOf(whole), path: "cart.Cart/ada", code: 200, want: "1 2 3 4 5"},
		"from":                  {logs: logsOf(whole), path: "cart.Cart/ada?from=4", code: 200, want: "4 5"},
		"none":                  {logs: logsOf(empty), path: "cart.Cart/a%2Fb", code: 200, want: ""},
		"the first is down":     {logs: logsOf(nil, whole), path: "cart.Cart/ada", code: 200, want: "1 2 3 4 5"},
		"the first breaks":      {logs: logsOf(breaks, whole), path: "cart.Cart/ada", code: 200, want: "1 2 3 4 5"},
		"the first isn't ready": {logs: logsOf(refuses(codes.NotFound), whole), path: "cart.Cart/ada", code: 200, want: "1 2 3 4 5"},
		"all are down":          {logs: logsOf(nil, nil), path: "cart.Cart/ada", code: 503, error: "unix"},
		"no nodes":              {path: "cart.Cart/ada", code: 503, error: "no nodes"},
		"all break":             {logs: logsOf(breaks, breaks), path: "cart.Cart/ada", code: 200, want: "1 2", error: "breaks"},
		"deleted":               {logs: logsOf(refuses(codes.OutOfRange), whole), path: "cart.Cart/ada", code: 409, error: "because"},
		"another model":         {logs: logsOf(whole), path: "bank/ada", code: 409, error: "not event_sourced"},
		"unknown type":          {logs: logsOf(whole), path: "tank/ada", code: 404, error: "no configured service"},
		"no key":                {logs: logsOf(whole), path: "cart.Cart", code: 400, error: "percent-encoded"},
		"no number":             {logs: logsOf(whole), path: "cart.Cart/ada?from=-1", code: 400, error: "percent-encoded"},
	} {
		t.Run(name, func(t *testing.T) {
			p := historyPlane(t, c.logs...)
			w := httptest.NewRecorder()
			admin.Handler(p, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/history/"+c.path, nil))
			if w.Code != c.code {
				t.Fatalf("got %d: %s", w.Code, w.Body)
			}
			var got []string
			failure := ""
			for in := json.NewDecoder(w.Body); ; {
				var line admin.HistoryLine
				if err := in.Decode(&line); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				failure = line.Error
				if e := line.Event; e != nil {
					got = append(got, fmt.Sprint(e.Sequence))
					if want := fmt.Sprintf(`{"from":"%d"}`, e.Sequence); string(e.Message) != want || len(e.Payload) == 0 || e.Time.IsZero() {
						t.Errorf("got %+v, want message %s", e, want)
					}
				}
			}
			if strings.Join(got, " ") != c.want || (failure == "") != (c.error == "") || !strings.Contains(failure, c.error) {
				t.Errorf("got events %v, error %q; want %q, %q", got, failure, c.want, c.error)
			}
		})
	}
}

func logsOf(logs ...func(*eventlogv1.ReadRequest, eventStream) error) []func(*eventlogv1.ReadRequest, eventStream) error {
	return logs
}

// TestHistoryFollows: a store that goes away is replaced by another, without a gap or a repetition.
func TestHistoryFollows(t *testing.T) {
	var mu sync.Mutex
	committed, stores := uint64(2), 0
	// Each call sends what there is, then breaks, so that every two events come from another store.
	log := func(r *eventlogv1.ReadRequest, s eventStream) error {
		mu.Lock()
		last := committed
		committed, stores = committed+2, stores+1
		mu.Unlock()
		if !r.GetFollow() {
			t.Error("did not follow")
		}
		if err := s.Send(events(max(r.GetFrom(), 1), last)); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "killed")
	}
	p := historyPlane(t, log, nil, log)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []uint64
	err := p.History(ctx, admin.HistoryRequest{Type: "cart.Cart", Key: "ada", Follow: true}, func(l *admin.HistoryLine) error {
		if got = append(got, l.Event.Sequence); l.Event.Sequence == 10 {
			cancel()
		}
		return nil
	})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("got %v", err)
	}
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(got, want) || stores < 5 {
		t.Errorf("got %v from %d stores, want %v", got, stores, want)
	}
}
