package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/holdfast-mesh/holdfast/internal/peercred"
	eventlogv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/eventlog/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Reader reads the log of one entity; see History. Errors may be refusals.
type Reader interface {
	History(ctx context.Context, h History) error
}

// Server is holdfast.eventlog.v1.EventLog on a Unix socket, for processes of the same user.
type Server struct {
	eventlogv1.UnimplementedEventLogServer
	reader   Reader
	log      *slog.Logger
	listener net.Listener
	grpc     *grpc.Server
	// readings has an element for each one under way.
	readings chan struct{}
}

// Listen makes a server on the socket; Serve must follow. The socket's folder becomes 0700.
func Listen(socket string, r Reader, log *slog.Logger) (*Server, error) {
	listener, err := peercred.Listen(socket, log)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	s := &Server{
		reader: r, log: log, listener: listener, readings: make(chan struct{}, maxReadings),
		grpc: grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.WaitForHandlers(true)),
	}
	eventlogv1.RegisterEventLogServer(s.grpc, s)
	reflection.Register(s.grpc)
	return s, nil
}

// Serve answers until Close, then returns nil.
func (s *Server) Serve() error {
	if err := s.grpc.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("event log: %w", err)
	}
	return nil
}

// Close ends all readings and waits for them: those who follow go on at another store.
func (s *Server) Close() error {
	s.grpc.Stop()
	// Stop closes it only where Serve was called.
	s.listener.Close()
	return nil
}

// Read implements the service.
func (s *Server) Read(r *eventlogv1.ReadRequest, stream grpc.ServerStreamingServer[eventlogv1.ReadResponse]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("reading of an event log panicked", "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "the store failed at this request")
		}
	}()
	select {
	case s.readings <- struct{}{}:
		defer func() { <-s.readings }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d readings are under way at this store: ask another one", maxReadings)
	}
	err = s.reader.History(stream.Context(), History{
		Type: r.GetType(), Key: r.GetKey(), From: r.GetFrom(), Follow: r.GetFollow(),
		Send: func(events []*holdfastv1.Event, last uint64) error {
			return stream.Send(&eventlogv1.ReadResponse{Events: events, LastSequence: last})
		},
	})
	return statusOf(err)
}

// statusOf is the one place where errors become gRPC's.
func statusOf(err error) error {
	var refused *refusal.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return status.Error(refused.Code, refused.Message)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, err.Error())
}

// readError is a failure to read etcd as a refusal, with its own code where it has one.
func readError(op string, err error) error {
	var coded interface{ Code() int32 }
	code := codes.Unavailable
	switch {
	case errors.As(err, &coded):
		code = codes.Code(coded.Code())
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return refusal.NotApplied(code, "%s: %v", op, err)
}
