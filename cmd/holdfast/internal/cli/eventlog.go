package cli

import (
	"log/slog"

	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/eventlog"
)

// serveEventLog serves the event log on the Unix socket until stop is called.
func serveEventLog(socket string, engine *statestore.Engine, log *slog.Logger) (stop func() error, err error) {
	s, err := eventlog.Listen(socket, engine, log)
	if err != nil {
		return nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(); err != nil {
			log.Error("event log ended", "error", err)
		}
	}()
	return func() error {
		err := s.Close()
		<-served
		return err
	}, nil
}
