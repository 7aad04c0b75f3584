package eventlog_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	eventlogv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/eventlog/v1"
	"github.com/holdfast-mesh/holdfast/statestore/eventlog"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

type readerFunc func(ctx context.Context, h eventlog.History) error

func (f readerFunc) History(ctx context.Context, h eventlog.History) error { return f(ctx, h) }

// serve serves r, and returns a connection to it.
func serve(t *testing.T, r eventlog.Reader) (*eventlog.Server, *grpc.ClientConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "events.sock")
	s, err := eventlog.Listen(socket, r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, conn
}

func read(ctx context.Context, conn *grpc.ClientConn, r *eventlogv1.ReadRequest, each func(*eventlogv1.ReadResponse)) error {
	stream, err := eventlogv1.NewEventLogClient(conn).Read(ctx, r)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		each(m)
	}
}

func TestServer(t *testing.T) {
	e := newEtcd(t)
	e.append(2)
	s, conn := serve(t, readerFunc(func(ctx context.Context, h eventlog.History) error { return h.Read(ctx, e) }))
	seen := uint64(0)
	err := read(t.Context(), conn, &eventlogv1.ReadRequest{Type: "cart.Cart", Key: "ada"}, func(m *eventlogv1.ReadResponse) {
		seen += uint64(len(m.GetEvents()))
		if m.GetLastSequence() != 2 {
			t.Errorf("got %v", m)
		}
	})
	if err != nil || seen != 2 {
		t.Fatalf("got %d events, %v", seen, err)
	}
	// A follower sees what comes, until the store stops.
	seen = 0
	err = read(t.Context(), conn, &eventlogv1.ReadRequest{Type: "cart.Cart", Key: "ada", From: 2, Follow: true}, func(m *eventlogv1.ReadResponse) {
		for _, event := range m.GetEvents() {
			switch seen = event.GetSequence(); seen {
			case 2:
				e.append(1)
			case 3:
				go s.Close()
			}
		}
	})
	if status.Code(err) != codes.Unavailable || seen != 3 {
		t.Errorf("got %v after event %d, want UNAVAILABLE after 3", err, seen)
	}
}

func TestServerErrors(t *testing.T) {
	var fail error
	_, conn := serve(t, readerFunc(func(context.Context, eventlog.History) error {
		if fail == nil {
			panic("planted")
		}
		return fail
	}))
	for _, c := range []struct {
		fail error
		want codes.Code
	}{
		{refusal.NotApplied(codes.OutOfRange, "deleted"), codes.OutOfRange},
		{errors.New("not a layout that is known"), codes.Internal},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{nil, codes.Internal},
	} {
		fail = c.fail
		err := read(t.Context(), conn, &eventlogv1.ReadRequest{}, func(*eventlogv1.ReadResponse) {})
		if status.Code(err) != c.want {
			t.Errorf("%v: got %v, want %v", c.fail, err, c.want)
		}
	}
}

// TestServerIsFull: who comes too late is told to ask elsewhere, and places become free again.
func TestServerIsFull(t *testing.T) {
	_, conn := serve(t, readerFunc(func(ctx context.Context, h eventlog.History) error {
		if err := h.Send(nil, 0); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range eventlog.MaxReadings {
		stream, err := eventlogv1.NewEventLogClient(conn).Read(ctx, &eventlogv1.ReadRequest{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if err := read(t.Context(), conn, &eventlogv1.ReadRequest{}, func(*eventlogv1.ReadResponse) {}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED", err)
	}
	cancel()
	for {
		one, stop := context.WithCancel(t.Context())
		err := read(one, conn, &eventlogv1.ReadRequest{}, func(*eventlogv1.ReadResponse) { stop() })
		stop()
		if status.Code(err) == codes.Canceled {
			break
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
	}
}

// TestReflection: grpcurl can ask what there is.
func TestReflection(t *testing.T) {
	_, conn := serve(t, readerFunc(func(context.Context, eventlog.History) error { return nil }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range answer.GetListServicesResponse().GetService() {
		if s.GetName() == eventlogv1.EventLog_ServiceDesc.ServiceName {
			return
		}
	}
	t.Errorf("got %v", answer)
}
