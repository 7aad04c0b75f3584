package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// A Python service that knows nothing of ours but a JSON header counts, wherever the visits arrive.
func TestVisits(t *testing.T) {
	m := mesh(t)
	page := newKey(t)
	tally := rig.Each(6, 60, func(i int) (*rig.Reply, error) { return visit(m, m.Ingress(1+i%nodes), page) })
	if tally.Acked() != 60 {
		t.Fatalf("got %v, want 60 acknowledged", tally)
	}
	within(t, 10*time.Second, agree(append(m.Ingresses(), m.Gateway()), func(a string) (int, error) { return visits(m, a, page) }, exactly(60)))
}

// Reflection and health reach the services as if nothing stood between.
func TestReflectionAndHealth(t *testing.T) {
	m := mesh(t)
	for _, address := range []string{m.Gateway(), m.Ingress(3)} {
		stream, err := grpc_reflection_v1.NewServerReflectionClient(dial(t, address)).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
		})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatalf("reflection at %s: %v", address, err)
		}
		if len(answer.GetListServicesResponse().GetService()) < 2 {
			t.Errorf("reflection at %s lists %v", address, answer)
		}
		h, err := grpc_health_v1.NewHealthClient(dial(t, address)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health at %s: %v, %v; want SERVING", address, h, err)
		}
	}
}

// Errors reach REST callers with the matching HTTP status and a JSON google.rpc.Status, gRPC callers as a gRPC status.
func TestErrors(t *testing.T) {
	m := mesh(t)
	account := newKey(t)
	for _, address := range []string{m.Gateway(), m.Ingress(2)} {
		for _, c := range []struct {
			name, path, body string
			http, code       int
		}{
			{"refused by the service", "/v1/accounts/" + account + ":withdraw", `{"amount_cents":1}`, 400, 9},
			{"bad argument", "/v1/accounts/" + account + ":deposit", `{"amount_cents":-1}`, 400, 3},
			{"empty question", "/v1/presentations/" + account + "/questions", `{"question":""}`, 400, 3},
			{"no JSON", "/v1/accounts/" + account + ":deposit", `{"amount_cents":`, 400, 3},
			{"no such field", "/v1/accounts/" + account + ":deposit", `{"amount_dollars":1}`, 400, 3},
			{"no such path", "/v1/nothing", `{}`, 404, 5},
		} {
			if c.http == http.StatusNotFound && address == m.Gateway() {
				// What is nobody's path is the page's there.
				continue
			}
			r, err := rig.Raw(t.Context(), http.DefaultTransport, "http://"+address+c.path, c.body, http.Header{"Content-Type": {"application/json"}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != c.http || statusCode(r) != c.code {
				t.Errorf("%s at %s: %d %s, want %d with code %d", c.name, address, r.Status, r.Body, c.http, c.code)
			}
			if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
				t.Errorf("%s: content type %q, want application/json", c.name, kind)
			}
		}
		_, err := bankv1.NewAccountsClient(dial(t, address)).Withdraw(t.Context(), &bankv1.WithdrawRequest{Account: account, AmountCents: 1})
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("withdrawal over gRPC: %v, want FAILED_PRECONDITION", err)
		}
		_, err = bankv1.NewAccountsClient(dial(t, address)).Deposit(t.Context(), &bankv1.DepositRequest{AmountCents: 1})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("deposit without an account: %v, want INVALID_ARGUMENT", err)
		}
	}
}

// A node whose service is dead hands over to another by itself: callers of that node are served, and nothing is counted
// twice.
func TestServiceKilled(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	ctx, cancel := context.WithCancel(t.Context())
	killed := make(chan int)
	go func() {
		// The supervisor starts it again and again; so it is killed again and again.
		last, n := 0, 0
		for ctx.Err() == nil {
			if s, err := m.Node("node-2"); err == nil {
				if pid := s.ServicePIDs["questions"]; pid != 0 && pid != last && m.Kill(pid) == nil {
					last, n = pid, n+1
				}
			}
		}
		killed <- n
	}()
	elsewhere := map[string]int{}
	load := &rig.Tally{}
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); {
		r, err := m.Do("POST", m.Ingress(2), "/v1/presentations/"+key+"/votes", map[string]string{"question": question},
			map[string][]string{"Holdfast-Explain": {"1"}})
		if load.Add(r, err) == rig.Acked {
			elsewhere[r.Header.Get("holdfast-explain")]++
		}
	}
	cancel()
	if n := <-killed; n < 1 {
		t.Fatal("the service was never killed")
	} else {
		t.Logf("killed %d times; answered by %v; %v", n, elsewhere, load)
	}
	if len(elsewhere) < 2 {
		t.Errorf("all calls were answered by %v, want other nodes too", elsewhere)
	}
	if failed := load.Refused() + load.Unknown(); failed*20 > load.Acked() {
		t.Errorf("%v, want at most one in twenty to fail", load)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(load)))
	within(t, 20*time.Second, func() error { return m.WaitReady(t.Context(), nodes) })
}

// Calls by gRPC, with the deadline kept by the mesh itself.
func TestGRPC(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	for i := range nodes {
		client := qav1.NewQuestionsClient(dial(t, m.Ingress(1+i)))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if _, err := client.Vote(ctx, &qav1.VoteRequest{Presentation: key, Question: question}); err != nil {
			t.Errorf("vote at node %d: %v", i+1, err)
		}
		cancel()
	}
	within(t, 10*time.Second, func() error {
		p, err := qav1.NewQuestionsClient(dial(t, m.Gateway())).Get(t.Context(), &qav1.GetRequest{Presentation: key})
		if err != nil {
			return err
		}
		if got := p.GetQuestions()[question]; got != nodes {
			return fmt.Errorf("%d votes, want %d", got, nodes)
		}
		return nil
	})
}

// The explanation names a node of the mesh, and only for who asks.
func TestExplain(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	r := must(t)(explained(m, m.Ingress(4), "/v1/presentations/"+key))
	if got := r.Header.Get("holdfast-explain"); got != "node=node-4" {
		t.Errorf("a read at node-4 explains %q, want node=node-4", got)
	}
	r = must(t)(m.Get(m.Ingress(4), "/v1/presentations/"+key))
	for name := range r.Header {
		if strings.HasPrefix(strings.ToLower(name), "holdfast") {
			t.Errorf("nobody asked for %s", name)
		}
	}
	must(t)(deposit(m, m.Ingress(4), key, 1))
	owner := ownerOf(t, m, accountType, key)
	r = must(t)(explained(m, m.Ingress(4), "/v1/accounts/"+key))
	var all []string
	for i := range nodes {
		all = append(all, fmt.Sprintf("node=node-%d", i+1))
	}
	if got := r.Header.Get("holdfast-explain"); !slices.Contains(all, got) || got != "node="+owner {
		t.Errorf("a read of an account owned by %s explains %q", owner, got)
	}
}
