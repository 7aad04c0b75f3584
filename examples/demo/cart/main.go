// Command cart serves cart.v1.Carts: shopping carts that are kept as the events that made them.
//
// It has no database. A cart comes in a field of each request: its last snapshot and the events since, which are folded into
// the cart as it is (cart.go). A command checks that cart and hands back the events that it makes (carts.go), and a new
// snapshot when it is asked for one.
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

	cartv1 "github.com/holdfast-mesh/holdfast/examples/demo/cart/cart/v1"
)

func main() {
	if err := run(); err != nil {
		slog.Error("cart stopped", "err", err)
		os.Exit(1)
	}
}

// run serves on $HOST:$PORT until SIGTERM or Ctrl-C.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	address := net.JoinHostPort(setting("HOST", "127.0.0.1"), setting("PORT", "50054"))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := grpc.NewServer()
	cartv1.RegisterCartsServer(s, server{})
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
