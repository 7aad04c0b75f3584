// Command page serves the demo's web page: plain files, no state.
//
// The page calls the services through the gateway that it is loaded from; this process never talks to them.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

//go:embed static
var static embed.FS

const (
	// maxShutdown bounds how long calls under way hold up a stop.
	maxShutdown = 3 * time.Second
	// maxHeaderWait bounds how long a connection may take to say what it wants.
	maxHeaderWait = 5 * time.Second
)

func main() {
	if err := run(); err != nil {
		slog.Error("page stopped", "err", err)
		os.Exit(1)
	}
}

// run serves on $HOST:$PORT until SIGTERM or Ctrl-C.
func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	files, err := fs.Sub(static, "static")
	if err != nil {
		return fmt.Errorf("open files: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(setting("HOST", "127.0.0.1"), setting("PORT", "8000")))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &http.Server{Handler: handler(files), ReadHeaderTimeout: maxHeaderWait}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.Background(), maxShutdown)
		defer cancel()
		stopped <- s.Shutdown(limited)
	}()
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// handler serves the files. They change with the program only, and a browser asks again each time: a stale page with a new
// service helps nobody.
func handler(files fs.FS) http.Handler {
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "there are only files here", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		server.ServeHTTP(w, r)
	})
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
