// Command accounts serves bank.v1.Accounts, balances that never go below zero, and bank.v1.Profiles.
//
// It has no database and no lock. An account comes in the metadata of each request, in the encoding that this service chose,
// and a changed one goes back in the trailers of the reply; a transfer gets two. That no two commands work on one account at
// a time is the configuration's doing (consistency: strong), so a plain comparison is enough here.
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

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
)

func main() {
	if err := run(); err != nil {
		slog.Error("accounts stopped", "err", err)
		os.Exit(1)
	}
}

// run serves on $HOST:$PORT until SIGTERM or Ctrl-C.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	address := net.JoinHostPort(setting("HOST", "127.0.0.1"), setting("PORT", "50052"))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := grpc.NewServer()
	bankv1.RegisterAccountsServer(s, server{})
	bankv1.RegisterProfilesServer(s, profiles{})
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
