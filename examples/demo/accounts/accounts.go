package main

import (
	"context"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// server answers from the accounts that come with each request and keeps nothing itself.
type server struct {
	bankv1.UnimplementedAccountsServer
}

func (server) Deposit(ctx context.Context, r *bankv1.DepositRequest) (*bankv1.Balance, error) {
	return change(ctx, func(a *bankv1.Account) error { return deposit(a, r.GetAmountCents()) })
}

func (server) Withdraw(ctx context.Context, r *bankv1.WithdrawRequest) (*bankv1.Balance, error) {
	return change(ctx, func(a *bankv1.Account) error { return withdraw(a, r.GetAmountCents()) })
}

// Transfer is given both accounts, and hands both back: they are kept together or not at all.
func (server) Transfer(ctx context.Context, r *bankv1.TransferRequest) (*bankv1.TransferReply, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.GetOthers()) != 1 {
		return nil, status.Error(codes.InvalidArgument, "to must name the account that the money goes to")
	}
	from, err := accountOf(in)
	if err != nil {
		return nil, err
	}
	to, err := accountOf(in.GetOthers()[0])
	if err != nil {
		return nil, err
	}
	if err := withdraw(from, r.GetAmountCents()); err != nil {
		return nil, err
	}
	if err := deposit(to, r.GetAmountCents()); err != nil {
		return nil, err
	}
	setFrom, err := set(from)
	if err != nil {
		return nil, err
	}
	setTo, err := set(to)
	if err != nil {
		return nil, err
	}
	err = stateOut(ctx, &holdfastv1.StateOut{
		Operations: []*holdfastv1.Operation{setFrom},
		Others:     []*holdfastv1.EntityOut{{Key: in.GetOthers()[0].GetKey(), Operations: []*holdfastv1.Operation{setTo}}},
	})
	if err != nil {
		return nil, err
	}
	return &bankv1.TransferReply{BalanceCents: from.GetBalanceCents(), ToBalanceCents: to.GetBalanceCents()}, nil
}

func (server) Get(ctx context.Context, _ *bankv1.GetRequest) (*bankv1.Balance, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	account, err := accountOf(in)
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
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	account, err := accountOf(in)
	if err != nil {
		return nil, err
	}
	if err := command(account); err != nil {
		return nil, err
	}
	changed, err := set(account)
	if err != nil {
		return nil, err
	}
	if err := stateOut(ctx, &holdfastv1.StateOut{Operations: []*holdfastv1.Operation{changed}}); err != nil {
		return nil, err
	}
	return &bankv1.Balance{BalanceCents: account.GetBalanceCents()}, nil
}

// accountOf reads an account. One that doesn't exist yet is empty.
func accountOf(in *holdfastv1.StateIn) (*bankv1.Account, error) {
	account := &bankv1.Account{}
	if err := proto.Unmarshal(in.GetValue().GetValue(), account); err != nil {
		return nil, status.Errorf(codes.Internal, "decode account %q: %v", in.GetKey(), err)
	}
	return account, nil
}

// set is the operation that keeps the account as it is now.
func set(account *bankv1.Account) (*holdfastv1.Operation, error) {
	value, err := proto.Marshal(account)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode account: %v", err)
	}
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: value}}}, nil
}
