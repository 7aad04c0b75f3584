package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/controlplane/admin"
)

func newKeyHistory() *cobra.Command {
	var dataDir string
	var output format
	var request admin.HistoryRequest
	c := &cobra.Command{
		Use:   "history TYPE/KEY",
		Short: "Show an event-sourced entity's events, and follow them",
		Long: `Shows the committed events of an event-sourced entity, oldest first. Payloads are shown as JSON where they are JSON, or where
the service's descriptors have a message with the event's type as its name.

With --follow it waits for more. Nothing is left out and nothing comes twice, whatever stores go away meanwhile; who notes the
last sequence that was seen can go on from there with --from. -o json prints an object on a line for each event, with its
payload as base64 and, where it can be shown, as "message".

Programs read the same from any store's event log, a gRPC service: holdfast.eventlog.v1.EventLog on the Unix socket events.sock
in the node's run folder.`,
		Example: `  holdfast key history cart.Cart/ada
  holdfast key history cart.Cart/ada --from 12 --follow
  holdfast key history cart.Cart/ada -o json
  grpcurl -plaintext -d '{"type":"cart.Cart","key":"ada"}' unix:"$(readlink .holdfast/run)"/node-1/events.sock holdfast.eventlog.v1.EventLog/Read`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := keyPath(args[0]); err != nil {
				return err
			}
			request.Type, request.Key, _ = strings.Cut(args[0], "/")
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			return showHistory(cmd.Context(), cmd.OutOrStdout(), client, request, output)
		},
	}
	c.Flags().Uint64Var(&request.From, "from", 1, "the first event's sequence")
	c.Flags().BoolVarP(&request.Follow, "follow", "f", false, "wait for more until interrupted")
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

func showHistory(ctx context.Context, w io.Writer, client localmesh.Client, r admin.HistoryRequest, output format) error {
	body, err := client.AdminStream(ctx, r.Path())
	if err != nil {
		return err
	}
	defer body.Close()
	p := &historyPrinter{w: w, json: output == "json"}
	err = p.all(body)
	if ctx.Err() != nil {
		// Interrupted, as everybody who follows is.
		return nil
	}
	if err == nil && !p.json && !r.Follow && p.shown == 0 {
		_, err = fmt.Fprintf(w, "No events from %d on; the last one is %d.\n", max(r.From, 1), p.last)
	}
	return err
}

// historyPrinter prints lines of a history as they come.
type historyPrinter struct {
	w     io.Writer
	json  bool
	shown int
	last  uint64
	// width of the column with types: it grows with what comes.
	width int
}

func (p *historyPrinter) all(body io.Reader) error {
	for in := json.NewDecoder(body); ; {
		var line admin.HistoryLine
		err := in.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the control plane went away: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		}
		p.last = line.LastSequence
		if line.Event == nil {
			continue
		}
		if err := p.event(line.Event); err != nil {
			return err
		}
		p.shown++
	}
}

// minEventWidth is as wide as many event types are.
const minEventWidth = 20

func (p *historyPrinter) event(e *admin.Event) error {
	if p.json {
		return printJSONLine(p.w, e)
	}
	payload := plainBytes(e.Payload)
	if len(e.Message) > 0 {
		payload = plainBytes(e.Message)
	}
	if p.shown == 0 {
		p.width = max(minEventWidth, len(e.Type))
		if _, err := fmt.Fprintf(p.w, "%-8s  %-24s  %-*s  %s\n", "SEQUENCE", "TIME", p.width, "EVENT", "PAYLOAD"); err != nil {
			return err
		}
	}
	p.width = max(p.width, len(e.Type))
	_, err := fmt.Fprintf(p.w, "%-8d  %-24s  %-*s  %s\n", e.Sequence, e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), p.width, plainBytes([]byte(e.Type)), payload)
	return err
}
