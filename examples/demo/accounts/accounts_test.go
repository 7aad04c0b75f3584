package main

import (
	"context"
	"math"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// call is the server's side of one call: the state that came with it, and the trailers that leave.
type call struct {
	grpc.ServerTransportStream
	trailers metadata.MD
}

func (c *call) SetTrailer(md metadata.MD) error {
	c.trailers = metadata.Join(c.trailers, md)
	return nil
}

func (c *call) context(t *testing.T, in *holdfastv1.StateIn) context.Context {
	t.Helper()
	state, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(stateKey, string(state)))
	return grpc.NewContextWithServerTransportStream(ctx, c)
}

// changes are the changes in the trailers; nil where nothing is to be kept.
func (c *call) changes(t *testing.T) *holdfastv1.StateOut {
	t.Helper()
	values := c.trailers.Get(stateKey)
	if len(values) == 0 {
		return nil
	}
	out := &holdfastv1.StateOut{}
	if err := proto.Unmarshal([]byte(values[0]), out); err != nil {
		t.Fatal(err)
	}
	if len(values) != 1 {
		t.Fatalf("got %d states, want one", len(values))
	}
	return out
}

// kept is the balance in the trailers; false where nothing is to be kept.
func (c *call) kept(t *testing.T) (int64, bool) {
	t.Helper()
	out := c.changes(t)
	if out == nil {
		return 0, false
	}
	return balance(t, out.GetOperations()), true
}

// balance is what the one operation sets.
func balance(t *testing.T, operations []*holdfastv1.Operation) int64 {
	t.Helper()
	if len(operations) != 1 || operations[0].GetSet() == nil {
		t.Fatalf("got operations %v, want one that sets", operations)
	}
	var account bankv1.Account
	if err := proto.Unmarshal(operations[0].GetSet().GetValue(), &account); err != nil {
		t.Fatal(err)
	}
	return account.GetBalanceCents()
}

func holding(t *testing.T, cents int64) *holdfastv1.StateIn {
	t.Helper()
	value, err := proto.Marshal(&bankv1.Account{BalanceCents: cents})
	if err != nil {
		t.Fatal(err)
	}
	return &holdfastv1.StateIn{
		Type: "bank.Account", Key: "ada", Exists: true,
		Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: value}},
	}
}

func TestCommands(t *testing.T) {
	fresh := &holdfastv1.StateIn{Type: "bank.Account", Key: "ada"}
	for name, c := range map[string]struct {
		in   *holdfastv1.StateIn
		cmd  func(context.Context) (*bankv1.Balance, error)
		want int64
		code codes.Code
	}{
		"deposit to a new account":     {fresh, pay(100), 100, codes.OK},
		"deposit":                      {holding(t, 50), pay(100), 150, codes.OK},
		"deposit nothing":              {holding(t, 50), pay(0), 0, codes.InvalidArgument},
		"deposit less than nothing":    {holding(t, 50), pay(-1), 0, codes.InvalidArgument},
		"deposit too much":             {holding(t, 1), pay(math.MaxInt64), 0, codes.OutOfRange},
		"withdraw some":                {holding(t, 50), take(20), 30, codes.OK},
		"withdraw all":                 {holding(t, 50), take(50), 0, codes.OK},
		"withdraw more":                {holding(t, 50), take(51), 0, codes.FailedPrecondition},
		"withdraw from a new account":  {fresh, take(1), 0, codes.FailedPrecondition},
		"withdraw nothing":             {holding(t, 50), take(0), 0, codes.InvalidArgument},
		"withdraw less than nothing":   {holding(t, 50), take(-1), 0, codes.InvalidArgument},
		"withdraw the smallest number": {holding(t, 50), take(math.MinInt64), 0, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := &call{}
			got, err := c.cmd(s.context(t, c.in))
			if status.Code(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			kept, changed := s.kept(t)
			if changed != (c.code == codes.OK) {
				t.Errorf("state out sent: %t, want %t", changed, c.code == codes.OK)
			}
			if got.GetBalanceCents() != c.want || kept != c.want {
				t.Errorf("got balance %d, kept %d, want %d", got.GetBalanceCents(), kept, c.want)
			}
		})
	}
}

func pay(amount int64) func(context.Context) (*bankv1.Balance, error) {
	return func(ctx context.Context) (*bankv1.Balance, error) {
		return server{}.Deposit(ctx, &bankv1.DepositRequest{Account: "ada", AmountCents: amount})
	}
}

func take(amount int64) func(context.Context) (*bankv1.Balance, error) {
	return func(ctx context.Context) (*bankv1.Balance, error) {
		return server{}.Withdraw(ctx, &bankv1.WithdrawRequest{Account: "ada", AmountCents: amount})
	}
}

func TestTransfer(t *testing.T) {
	fresh := &holdfastv1.StateIn{Type: "bank.Account", Key: "bob"}
	for name, c := range map[string]struct {
		from, to       *holdfastv1.StateIn
		amount         int64
		wantFrom, want int64
		code           codes.Code
	}{
		"some":                {holding(t, 50), holding(t, 7), 20, 30, 27, codes.OK},
		"all, to a new one":   {holding(t, 50), fresh, 50, 0, 50, codes.OK},
		"more than there is":  {holding(t, 50), holding(t, 7), 51, 0, 0, codes.FailedPrecondition},
		"nothing":             {holding(t, 50), holding(t, 7), 0, 0, 0, codes.InvalidArgument},
		"less than nothing":   {holding(t, 50), holding(t, 7), -1, 0, 0, codes.InvalidArgument},
		"more than fits":      {holding(t, 50), holding(t, math.MaxInt64), 1, 0, 0, codes.OutOfRange},
		"to nobody":           {holding(t, 50), nil, 1, 0, 0, codes.InvalidArgument},
		"what can't be read":  {holding(t, 50), &holdfastv1.StateIn{Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte{0xff}}}}, 1, 0, 0, codes.Internal},
		"from what can't be ": {&holdfastv1.StateIn{Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte{0xff}}}}, fresh, 1, 0, 0, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s, in := &call{}, proto.Clone(c.from).(*holdfastv1.StateIn)
			if c.to != nil {
				to := proto.Clone(c.to).(*holdfastv1.StateIn)
				to.Key = "bob"
				in.Others = []*holdfastv1.StateIn{to}
			}
			got, err := server{}.Transfer(s.context(t, in), &bankv1.TransferRequest{Account: "ada", To: "bob", AmountCents: c.amount})
			if status.Code(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			out := s.changes(t)
			if c.code != codes.OK {
				if out != nil {
					t.Errorf("refused, and yet to be kept: %v", out)
				}
				return
			}
			if got.GetBalanceCents() != c.wantFrom || got.GetToBalanceCents() != c.want {
				t.Errorf("got %v, want %d and %d", got, c.wantFrom, c.want)
			}
			if len(out.GetOthers()) != 1 || out.GetOthers()[0].GetKey() != "bob" {
				t.Fatalf("changes of others: %v, want bob's", out.GetOthers())
			}
			if from, to := balance(t, out.GetOperations()), balance(t, out.GetOthers()[0].GetOperations()); from != c.wantFrom || to != c.want {
				t.Errorf("kept %d and %d, want %d and %d", from, to, c.wantFrom, c.want)
			}
		})
	}
}

func TestGetChangesNothing(t *testing.T) {
	s := &call{}
	got, err := server{}.Get(s.context(t, holding(t, 70)), &bankv1.GetRequest{Account: "ada"})
	if err != nil || got.GetBalanceCents() != 70 {
		t.Errorf("got %v, %v, want 70", got, err)
	}
	if _, changed := s.kept(t); changed {
		t.Error("a read sent state out")
	}
}

func TestNoStateIsNoEmptyAccount(t *testing.T) {
	ctx := grpc.NewContextWithServerTransportStream(context.Background(), &call{})
	if _, err := pay(1)(ctx); status.Code(err) != codes.Internal {
		t.Errorf("got %v, want INTERNAL", err)
	}
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(stateKey, "\xff"))
	if _, err := take(1)(ctx); status.Code(err) != codes.Internal {
		t.Errorf("got %v, want INTERNAL", err)
	}
}
