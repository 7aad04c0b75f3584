package localmesh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"
)

// unixClient is an HTTP client for one Unix socket. It keeps no connection: who answers may be another process soon.
func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// call makes a request to a Unix socket and returns the body of a 200.
func call(ctx context.Context, method, socket, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://unix"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := unixClient(socket).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return body, nil
}

// readyz asks a process of ours whether it is ready.
func readyz(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := call(ctx, http.MethodGet, socket, "/readyz")
		return err
	}
}

// EnvoyReady says nil once Envoy has had its first configuration.
func EnvoyReady(ctx context.Context, adminSocket string) error {
	if _, err := call(ctx, http.MethodGet, adminSocket, "/ready"); err != nil {
		return fmt.Errorf("no answer, or no configuration yet: %w", err)
	}
	return nil
}

// Listens says nil when something accepts connections at address.
func Listens(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("nothing listens at %s", address)
	}
	return c.Close()
}

// until polls done until it is true or the time is over; it returns whether it was.
func until(ctx context.Context, timeout time.Duration, done func(context.Context) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(pollState)
	defer tick.Stop()
	for {
		if done(ctx) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
