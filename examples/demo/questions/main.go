// Command questions serves qa.v1.Questions: questions to a presentation and the votes for them.
//
// It has no database and no memory. Its state comes in a field of each request, and what it wants kept goes back in a field
// of the reply, so any number of replicas can run and any of them may be killed.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"
)

func main() {
	if err := run(); err != nil {
		slog.Error("questions stopped", "err", err)
		os.Exit(1)
	}
}

// run serves on $HOST:$PORT until SIGTERM or Ctrl-C.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	address := net.JoinHostPort(setting("HOST", "127.0.0.1"), setting("PORT", "50051"))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := grpc.NewServer()
	qav1.RegisterQuestionsServer(s, server{})
	healthv1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		defer time.AfterFunc(maxShutdown, s.Stop).Stop()
		s.GracefulStop()
	}()
	err = s.Serve(listener)
	stop()
	<-stopped
	return err
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
