package main

import (
	"context"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// stateKey names the state in the request's metadata and the changes in the reply's trailers.
const stateKey = "holdfast-state-bin"

// server answers from the account that comes with each request and keeps nothing itself.
type server struct {
	bankv1.UnimplementedAccountsServer
}

func (server) Deposit(ctx context.Context, r *bankv1.DepositRequest) (*bankv1.Balance, error) {
	return change(ctx, func(a *bankv1.Account) error { return deposit(a, r.GetAmountCents()) })
}

func (server) Withdraw(ctx context.Context, r *bankv1.WithdrawRequest) (*bankv1.Balance, error) {
	return change(ctx, func(a *bankv1.Account) error { return withdraw(a, r.GetAmountCents()) })
}

func (server) Get(ctx context.Context, _ *bankv1.GetRequest) (*bankv1.Balance, error) {
	account, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	return &bankv1.Balance{BalanceCents: account.GetBalanceCents()}, nil
}

func deposit(a *bankv1.Account, amount int64) error {
	if amount <= 0 {
		return status.Error(codes.InvalidArgument, "amount_cents must be above zero")
	}
	if amount > math.MaxInt64-a.GetBalanceCents() {
		return status.Error(codes.OutOfRange, "the balance would be too large")
	}
	a.BalanceCents += amount
	return nil
}

func withdraw(a *bankv1.Account, amount int64) error {
	if amount <= 0 {
		return status.Error(codes.InvalidArgument, "amount_cents must be above zero")
	}
	if amount > a.GetBalanceCents() {
		return status.Errorf(codes.FailedPrecondition, "balance of %d cents does not cover %d cents", a.GetBalanceCents(), amount)
	}
	a.BalanceCents -= amount
	return nil
}

// change applies a command to the account and hands the changed account back.
func change(ctx context.Context, command func(*bankv1.Account) error) (*bankv1.Balance, error) {
	account, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if err := command(account); err != nil {
		return nil, err
	}
	if err := stateOut(ctx, account); err != nil {
		return nil, err
	}
	return &bankv1.Balance{BalanceCents: account.GetBalanceCents()}, nil
}

// stateIn reads the account that came with the request. An account that doesn't exist yet is empty; a request without any
// state is refused, because a balance of zero would be a guess.
func stateIn(ctx context.Context) (*bankv1.Account, error) {
	values := metadata.ValueFromIncomingContext(ctx, stateKey)
	if len(values) != 1 {
		return nil, status.Error(codes.Internal, "the request came without its state: call this service through Holdfast")
	}
	var in holdfastv1.StateIn
	if err := proto.Unmarshal([]byte(values[0]), &in); err != nil {
		return nil, status.Errorf(codes.Internal, "decode state: %v", err)
	}
	account := &bankv1.Account{}
	if err := proto.Unmarshal(in.GetValue().GetValue(), account); err != nil {
		return nil, status.Errorf(codes.Internal, "decode account %q: %v", in.GetKey(), err)
	}
	return account, nil
}

// stateOut hands the account back to be kept.
func stateOut(ctx context.Context, account *bankv1.Account) error {
	value, err := proto.Marshal(account)
	if err != nil {
		return status.Errorf(codes.Internal, "encode account: %v", err)
	}
	out, err := proto.Marshal(&holdfastv1.StateOut{Operations: []*holdfastv1.Operation{
		{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: value}}},
	}})
	if err != nil {
		return status.Errorf(codes.Internal, "encode changes: %v", err)
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs(stateKey, string(out))); err != nil {
		return status.Errorf(codes.Internal, "send changes: %v", err)
	}
	return nil
}
