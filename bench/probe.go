package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// probe measures the six-node demo: how long after its acknowledgement a vote is seen on every node, what memory each
// process takes, and how long the start took. Nothing of it is a pass condition.
func probe(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	nodes := flags.Int("nodes", 6, "nodes")
	votes := flags.Int("votes", 300, "votes to follow")
	every := flags.Duration("every", 20*time.Millisecond, "pause between two votes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	m, err := rig.Start(ctx, rig.Options{Nodes: *nodes})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	fmt.Printf("%d nodes ready %.1f s after the start of `holdfast up`.\n\n", *nodes, m.ReadyIn.Seconds())

	conns, err := dialAll(m, *nodes)
	if err != nil {
		return err
	}
	byWatch, err := follow(ctx, conns, *votes, *every, watchAll)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	byRead, err := follow(ctx, conns, *votes, *every, readAll)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	fmt.Printf("From acknowledgement to visible on all %d nodes, %d votes at changing nodes:\n\n", *nodes, *votes)
	fmt.Printf("| seen by | p50 ms | p99 ms | max ms |\n|---|---|---|---|\n%s%s\n", line("open watches", byWatch), line("repeated reads", byRead))
	return memory(m)
}

func line(name string, all []time.Duration) string {
	slices.Sort(all)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("| %s | %.1f | %.1f | %.1f |\n", name, ms(all[len(all)/2]), ms(all[len(all)*99/100]), ms(all[len(all)-1]))
}

func dialAll(m *rig.Mesh, nodes int) ([]*grpc.ClientConn, error) {
	conns := make([]*grpc.ClientConn, nodes)
	for i := range conns {
		c, err := connect(m.Ingress(i+1), 1)
		if err != nil {
			return nil, err
		}
		conns[i] = c[0]
	}
	return conns, nil
}

// sightings collects when each node first showed each count.
type sightings struct {
	mu sync.Mutex
	// first is by node, then by count.
	first []map[uint32]time.Time
	last  []uint32
	more  chan struct{}
}

// saw notes that a node shows n, and all below with it.
func (s *sightings) saw(node int, n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for i := s.last[node] + 1; i <= n; i++ {
		s.first[node][i] = now
	}
	s.last[node] = max(s.last[node], n)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// everywhere is when the last node showed n.
func (s *sightings) everywhere(n uint32) (last time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, first := range s.first {
		at, seen := first[n]
		if !seen {
			return time.Time{}, false
		}
		if at.After(last) {
			last = at
		}
	}
	return last, true
}

type looker func(ctx context.Context, conn *grpc.ClientConn, presentation string, saw func(uint32)) error

// follow casts votes one after the other at changing nodes and waits each time until look has seen it at every node.
func follow(ctx context.Context, conns []*grpc.ClientConn, votes int, every time.Duration, look looker) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	presentation := fmt.Sprintf("probe-%d", time.Now().UnixNano())
	s := &sightings{more: make(chan struct{}, 1), last: make([]uint32, len(conns))}
	problems := make(chan error, len(conns))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, c := range conns {
		s.first = append(s.first, map[uint32]time.Time{})
		wg.Go(func() {
			if err := look(ctx, c, presentation, func(n uint32) { s.saw(i, n) }); err != nil && ctx.Err() == nil {
				problems <- err
			}
		})
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var all []time.Duration
	for n := uint32(1); n <= uint32(votes); n++ {
		<-ticker.C
		_, err := qav1.NewQuestionsClient(conns[int(n)%len(conns)]).Vote(ctx, &qav1.VoteRequest{Presentation: presentation, Question: probed})
		acked := time.Now()
		if err != nil {
			return nil, err
		}
		late := time.After(visibleWait)
		for {
			if at, ok := s.everywhere(n); ok {
				all = append(all, max(0, at.Sub(acked)))
				break
			}
			select {
			case <-s.more:
			case err := <-problems:
				return nil, err
			case <-late:
				return nil, fmt.Errorf("vote %d was not visible everywhere after %v", n, visibleWait)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return all, nil
}

const probed = "When?"

// watchAll looks by a watch, as the page does.
func watchAll(ctx context.Context, conn *grpc.ClientConn, presentation string, saw func(uint32)) error {
	stream, err := qav1.NewQuestionsClient(conn).Watch(ctx, &qav1.WatchRequest{Presentation: presentation})
	if err != nil {
		return err
	}
	for {
		p, err := stream.Recv()
		if err != nil {
			return err
		}
		saw(p.GetQuestions()[probed])
	}
}

// readAll looks by reading, a thousand times a second at most.
func readAll(ctx context.Context, conn *grpc.ClientConn, presentation string, saw func(uint32)) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		p, err := qav1.NewQuestionsClient(conn).Get(ctx, &qav1.GetRequest{Presentation: presentation})
		if err != nil {
			return err
		}
		saw(p.GetQuestions()[probed])
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// memory prints the resident memory of each kind of process.
func memory(m *rig.Mesh) error {
	kinds := map[string][]int64{}
	for _, p := range m.Processes() {
		rss, err := rig.RSS(p.PID)
		if err != nil {
			continue
		}
		kinds[kind(p.Command)] = append(kinds[kind(p.Command)], rss>>10)
	}
	if len(kinds) == 0 {
		return errors.New("no process of the mesh was found")
	}
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	total := int64(0)
	fmt.Print("| process | how many | RSS each, MB (min/max) |\n|---|---|---|\n")
	for _, name := range names {
		for _, kb := range kinds[name] {
			total += kb
		}
		fmt.Printf("| %s | %d | %d/%d |\n", name, len(kinds[name]), slices.Min(kinds[name])>>10, slices.Max(kinds[name])>>10)
	}
	fmt.Printf("\n%d MB in all, shared pages counted in each.\n", total>>10)
	return nil
}

// kind names a process by its program and, for holdfast, its command.
func kind(command string) string {
	words := strings.Fields(command)
	if len(words) == 0 {
		return "?"
	}
	base := func(path string) string { return path[strings.LastIndex(path, "/")+1:] }
	name := base(words[0])
	if len(words) > 1 && (name == "holdfast" || strings.HasPrefix(name, "python")) {
		name += " " + base(words[1])
	}
	return name
}
