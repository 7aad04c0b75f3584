package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/controlplane/admin"
)

const (
	// watchEvery is how often --watch looks again.
	watchEvery = 500 * time.Millisecond
	// shortHash is how much of a hash people compare.
	shortHash = 8
	// shortReplica is how much of an identity tells a node's apart.
	shortReplica = 4
	// maxValue is how much of a value a table shows.
	maxValue = 60
)

func newKeyShow() *cobra.Command {
	var dataDir string
	var output format
	var replicas, watch bool
	c := &cobra.Command{
		Use:   "show TYPE/KEY",
		Short: "Show an entity, and with --replicas what each store holds of it",
		Long: `Shows an entity as "key get" does. With --replicas it shows what each store holds: its part (placed: the placement names
it; joined: it does not, but the entity is active there; none), the value, the hash of what it holds, and what it has seen of
each store's changes in the entity's slot: "node-2: 17" is all up to the 17th of that process of node-2, "17 +2" two later
ones beside. Replicas with the same hash hold the same.`,
		Example: `  holdfast key show qa.Presentation/kubecon --replicas
  holdfast key show qa.Presentation/kubecon --replicas --watch
  holdfast key show qa.Presentation/kubecon --replicas -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := keyPath(args[0])
			if err != nil {
				return err
			}
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			look := func() error { return showKey(cmd.Context(), cmd.OutOrStdout(), client, path, output, replicas, watch) }
			if !watch {
				return look()
			}
			return watching(cmd.Context(), look)
		},
	}
	c.Flags().BoolVar(&replicas, "replicas", false, "show what each store holds")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "look again until interrupted; with -o json one line for each look")
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

// keyPath is where the control plane's admin API has the entity TYPE/KEY.
func keyPath(name string) (string, error) {
	path, err := admin.KeyPath(name)
	if err != nil {
		return "", usageError{err}
	}
	return path, nil
}

// watching looks again and again until ctx is done. Only a first look that fails ends it.
func watching(ctx context.Context, look func() error) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		if err := look(); err != nil && ctx.Err() == nil && (first || errors.Is(err, localmesh.ErrNotRunning)) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func showKey(ctx context.Context, w io.Writer, client localmesh.Client, path string, output format, replicas, again bool) error {
	var k admin.Key
	if err := client.Admin(ctx, http.MethodGet, path, nil, &k); err != nil {
		return err
	}
	if output == "json" {
		if again {
			return printJSONLine(w, k)
		}
		return printJSON(w, k)
	}
	// As a whole, so that a terminal shows no half of it.
	var b strings.Builder
	if again && isTerminal(w) {
		b.WriteString("\x1b[H\x1b[2J")
	}
	if err := printKey(&b, overview(&k)); err != nil {
		return err
	}
	if replicas {
		if err := printReplicas(&b, &k); err != nil {
			return err
		}
	}
	if again && !isTerminal(w) {
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// overview is what is said of an entity as a whole.
func overview(k *admin.Key) *keyView {
	return &keyView{
		Type: k.Type, Key: k.Key, Exists: k.Exists, Value: k.Value, Version: k.Version, Slot: int(k.Slot),
		Consistency: k.Consistency, Owner: k.Owner, Replicas: k.Replicas, Active: k.Active,
	}
}

func printReplicas(w io.Writer, k *admin.Key) error {
	err := table(w, func(w io.Writer) {
		fmt.Fprintln(w, "\nSTORE\tROLE\tREACHABLE\tHASH\tVALUE\tSEEN")
		for _, c := range k.Copies {
			fmt.Fprintln(w, strings.Join(replicaRow(&c), "\t"))
		}
	})
	if err != nil {
		return err
	}
	last := "A strong entity has one state, in etcd; what stores hold are copies of it."
	if k.Agreement != nil {
		last = strings.ToUpper(k.Agreement.Summary[:1]) + k.Agreement.Summary[1:] + "."
	}
	_, err = fmt.Fprintf(w, "\n%s\n", last)
	return err
}

// replicaRow is a copy as a row of the table.
func replicaRow(c *admin.Copy) []string {
	role := c.Role
	if role == "" {
		role = "-"
	}
	if c.Error != "" {
		return []string{c.Node, role, "no", "-", c.Error, ""}
	}
	hash := c.Hash
	if hash = hash[:min(len(hash), shortHash)]; hash == "" || c.Role == admin.RoleNone {
		hash = "-"
	}
	value := "(does not exist)"
	switch {
	case c.Exists:
		value = cut(plainValue(c.Value), maxValue)
	case c.Role == admin.RoleNone:
		value = "-"
	}
	return []string{c.Node, role, "yes", hash, value, seenText(c.Seen)}
}

// seenText is what a store has seen, by node. One whose store was started again has several identities: they are told apart.
func seenText(seen []admin.Seen) string {
	of := map[string]int{}
	for _, s := range seen {
		of[s.Node]++
	}
	out := make([]string, len(seen))
	for i, s := range seen {
		name := s.Node
		if name == "" {
			name = s.Replica
		} else if of[name] > 1 {
			name += "/" + s.Replica[:min(len(s.Replica), shortReplica)]
		}
		out[i] = fmt.Sprintf("%s: %d", name, s.Upto)
		if s.Beyond > 0 {
			out[i] += fmt.Sprintf(" +%d", s.Beyond)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// cut shortens a text to n letters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
