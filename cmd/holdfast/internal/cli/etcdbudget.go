package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
)

// etcdReport is what `etcd budget -o json` prints. Numbers are bytes unless they say otherwise.
type etcdReport struct {
	Members []memberReport `json:"members"`
	// InUse and Quota are those of the member with the largest share.
	InUse int64   `json:"inUseBytes"`
	Quota int64   `json:"quotaBytes"`
	Share float64 `json:"share"`
	// RefuseFrom is what may be in use until writes that need more room are refused.
	RefuseFrom int64 `json:"refuseFromBytes"`
	// Refusing is why they are refused now, "" where they are not.
	Refusing   string           `json:"refusing,omitempty"`
	Compaction *etcd.Compaction `json:"compaction,omitempty"`
	Types      []typeReport     `json:"types"`
}

type memberReport struct {
	Endpoint string `json:"endpoint"`
	File     int64  `json:"fileBytes"`
	InUse    int64  `json:"inUseBytes"`
	Quota    int64  `json:"quotaBytes"`
	Full     bool   `json:"full,omitempty"`
	Leader   bool   `json:"leader"`
	Version  string `json:"version,omitempty"`
	Revision int64  `json:"revision"`
	Error    string `json:"error,omitempty"`
}

// typeReport is what the entities of a type take: their present heads and cells, without their former versions.
type typeReport struct {
	Type     string      `json:"type"`
	Entities int         `json:"entities"`
	Heads    int64       `json:"headBytes"`
	Cells    int64       `json:"cellBytes"`
	CellsN   int         `json:"cells"`
	Marks    int         `json:"marks"`
	Slots    int         `json:"slotsOwned"`
	Largest  []keyReport `json:"largest"`
}

type keyReport struct {
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
}

func newEtcdBudget() *cobra.Command {
	var dataDir string
	var output format
	largest := 3
	c := &cobra.Command{
		Use:   "budget",
		Short: "Show what strong entities take in etcd, and how much room is left",
		Long: `Shows etcd's members with the size of their files, what of it is in use and their quota; when history was compacted last;
and for each entity type how many entities there are, what they take, and the largest keys.

Writes that need more room are refused (RESOURCE_EXHAUSTED) from 80 % of the quota in use until it is below 75 %; deletes
go on. Etcd itself would refuse everything at 100 %. To raise the quota: up --etcd-quota-bytes, etcd --quota-bytes, or
--quota-backend-bytes of an etcd that others run.

It reads all strong entities from etcd: with many of them that takes a while.`,
		Example: `  holdfast etcd budget
  holdfast etcd budget --largest 10
  holdfast etcd budget -o json | jq .share`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if largest < 0 {
				return usageError{fmt.Errorf("--largest %d: must not be negative", largest)}
			}
			report, err := readEtcdReport(cmd.Context(), dataDir, largest)
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), report)
			}
			return report.print(cmd.OutOrStdout(), time.Now())
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	c.Flags().IntVar(&largest, "largest", largest, "how many of the largest keys of each type to show")
	return c
}

func readEtcdReport(ctx context.Context, dataDir string, largest int) (*etcdReport, error) {
	client, err := clientFor(dataDir)
	if err != nil {
		return nil, err
	}
	// Says that no mesh is running where none is.
	if _, err := client.Status(ctx); err != nil {
		return nil, err
	}
	topology, err := mesh.Read(client.Paths.Topology())
	if err != nil {
		return nil, err
	}
	c, err := dialEtcd(topology, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := waitEtcd(ctx, c); err != nil {
		return nil, err
	}
	out := &etcdReport{}
	if err := out.members(c.Members(ctx)); err != nil {
		return nil, err
	}
	last, err := c.LastCompaction(ctx)
	if err != nil {
		return nil, err
	}
	if !last.At.IsZero() {
		out.Compaction = &last
	}
	t := tally{}
	if err := c.Scan(ctx, tallied, etcd.PrefixEnd(tallied), func(kv etcd.KV) { t.add(kv.Key, int64(len(kv.Key)+len(kv.Value))) }); err != nil {
		return nil, err
	}
	out.Types = t.report(largest)
	return out, nil
}

// waitEtcd waits until etcd answers, and says why it does not.
func waitEtcd(ctx context.Context, c *etcd.Client) error {
	ctx, cancel := context.WithTimeout(ctx, etcdWait)
	defer cancel()
	for changed := c.Changed(); !c.Up(); changed = c.Changed() {
		select {
		case <-changed:
		case <-ctx.Done():
			_, err := c.Get(context.WithoutCancel(ctx), placementKey)
			return fmt.Errorf("no answer in %s: %w", etcdWait, cmp.Or(err, ctx.Err()))
		}
	}
	return nil
}

// members fills in what the members say; one that does not answer is told of, all of them are an error.
func (r *etcdReport) members(all []etcd.MemberUsage) error {
	var errs []error
	var worst etcd.Usage
	for _, m := range all {
		one := memberReport{
			Endpoint: m.Endpoint, File: m.Size, InUse: m.InUse, Quota: m.Quota, Full: m.Full, Leader: m.Leader, Version: m.Version, Revision: m.Rev,
		}
		if m.Err != nil {
			one.Error = m.Err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", m.Endpoint, m.Err))
		} else if worst.Quota == 0 || m.Share() > worst.Share() {
			worst = m.Usage
		}
		r.Members = append(r.Members, one)
	}
	if len(errs) == len(all) {
		return errors.Join(errs...)
	}
	r.InUse, r.Quota, r.Share, r.RefuseFrom = worst.InUse, worst.Quota, worst.Share(), worst.RefuseFrom()
	if why := worst.Refusal(); why != nil {
		r.Refusing = why.Error()
	}
	return nil
}

func (r *etcdReport) print(w io.Writer, now time.Time) error {
	fmt.Fprintf(w, "%s of %s in use (%.1f %%). ", etcd.Bytes(r.InUse), etcd.Bytes(r.Quota), 100*r.Share)
	if r.Refusing != "" {
		fmt.Fprintf(w, "Writes are refused: %s\n", r.Refusing)
	} else {
		fmt.Fprintf(w, "Writes that need more room are refused from %s.\n", etcd.Bytes(r.RefuseFrom))
	}
	if c := r.Compaction; c != nil {
		fmt.Fprintf(w, "History was compacted %s ago by %s.\n\n", now.Sub(c.At).Round(100*time.Millisecond), c.By)
	} else {
		fmt.Fprint(w, "History was not compacted yet.\n\n")
	}
	err := table(w, func(w io.Writer) {
		fmt.Fprintln(w, "MEMBER\tFILE\tIN USE\tQUOTA\tREVISION\tVERSION\t")
		for _, m := range r.Members {
			role := map[bool]string{true: "leader"}[m.Leader]
			if m.Error != "" {
				fmt.Fprintf(w, "%s\t\t\t\t\t\t%s\n", m.Endpoint, m.Error)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", m.Endpoint, etcd.Bytes(m.File), etcd.Bytes(m.InUse), etcd.Bytes(m.Quota), m.Revision, m.Version, role)
		}
	})
	if err != nil {
		return err
	}
	if len(r.Types) == 0 {
		_, err := fmt.Fprintln(w, "\nThere are no strong entities.")
		return err
	}
	fmt.Fprintln(w)
	return table(w, func(w io.Writer) {
		fmt.Fprintln(w, "TYPE\tENTITIES\tHEADS\tCELLS\tMARKS\tSLOTS OWNED\tLARGEST KEYS")
		for _, t := range r.Types {
			var keys []string
			for _, k := range t.Largest {
				keys = append(keys, fmt.Sprintf("%s (%s)", k.Key, etcd.Bytes(k.Bytes)))
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%d\t%s\n", t.Type, t.Entities, etcd.Bytes(t.Heads), etcd.Bytes(t.Cells), t.Marks, t.Slots, strings.Join(keys, ", "))
		}
	})
}

// tallied is what the keys of strong entities begin with. The layout is replication/strong's.
const tallied = "/holdfast/"

// tally adds up what each type's entities take.
type tally map[string]*typeTally

type typeTally struct {
	report typeReport
	keys   map[string]int64
}

// add counts a key of etcd with its size; other keys than those of entities are not counted.
func (t tally) add(key string, size int64) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(key, tallied), "/")
	parts := strings.SplitN(rest, "/", 4)
	of := func() *typeTally {
		name, err := url.PathUnescape(parts[0])
		if err != nil {
			name = parts[0]
		}
		if t[name] == nil {
			t[name] = &typeTally{report: typeReport{Type: name, Largest: []keyReport{}}, keys: map[string]int64{}}
		}
		return t[name]
	}
	switch {
	case kind == "slots" && len(parts) == 2:
		of().report.Slots++
	case kind == "due" && len(parts) == 4:
		of().report.Marks++
	case kind == "entities" && len(parts) == 3:
		of().report.Entities++
		of().report.Heads += size
		of().keys[parts[2]] += size
	case kind == "cells" && len(parts) == 4:
		of().report.CellsN++
		of().report.Cells += size
		of().keys[parts[2]] += size
	}
}

func (t tally) report(largest int) []typeReport {
	out := []typeReport{}
	for _, name := range sortedKeys(t) {
		one := t[name]
		for _, key := range sortedKeys(one.keys) {
			plain, err := url.PathUnescape(key)
			if err != nil {
				plain = key
			}
			one.report.Largest = append(one.report.Largest, keyReport{plain, one.keys[key]})
		}
		slices.SortStableFunc(one.report.Largest, func(a, b keyReport) int { return cmp.Compare(b.Bytes, a.Bytes) })
		one.report.Largest = one.report.Largest[:min(largest, len(one.report.Largest))]
		out = append(out, one.report)
	}
	return out
}
