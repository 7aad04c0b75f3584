package main

import (
	"context"
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// server answers from the state that comes with each request and keeps nothing itself.
type server struct {
	qav1.UnimplementedQuestionsServer
}

func (server) Ask(_ context.Context, r *qav1.AskRequest) (*qav1.AskReply, error) {
	question, err := cleanQuestion(r.GetQuestion())
	if err != nil {
		return nil, err
	}
	update := &holdfastv1.MapUpdate{Key: question}
	if _, asked := entries(r.GetState().GetValue())[question]; asked {
		update.Operation = increment()
	}
	return &qav1.AskReply{Changes: changes(update)}, nil
}

// Vote counts for a question that isn't in the state too: it may have been asked at another replica a moment ago and not
// be here yet. Votes and question meet when the replicas merge.
func (server) Vote(_ context.Context, r *qav1.VoteRequest) (*qav1.VoteReply, error) {
	question, err := cleanQuestion(r.GetQuestion())
	if err != nil {
		return nil, err
	}
	return &qav1.VoteReply{Changes: changes(&holdfastv1.MapUpdate{Key: question, Operation: increment()})}, nil
}

func (server) Get(_ context.Context, r *qav1.GetRequest) (*qav1.Presentation, error) {
	return &qav1.Presentation{Questions: votes(r.GetState().GetValue())}, nil
}

// Watch is called with the state at once, and again with the new state and the previous one whenever it changed. It sends
// what there is to say and returns: the caller's stream stays open meanwhile.
func (server) Watch(r *qav1.WatchRequest, stream grpc.ServerStreamingServer[qav1.Presentation]) error {
	now := votes(r.GetState().GetValue())
	if r.GetState().GetPrevious() == nil {
		return stream.Send(&qav1.Presentation{Questions: now})
	}
	if changed := difference(votes(r.GetState().GetPrevious()), now); len(changed) > 0 {
		return stream.Send(&qav1.Presentation{Questions: changed})
	}
	return nil
}

// difference returns the entries of now that are new or have another count than before.
func difference(before, now map[string]uint32) map[string]uint32 {
	changed := map[string]uint32{}
	for question, n := range now {
		if old, there := before[question]; !there || old != n {
			changed[question] = n
		}
	}
	return changed
}

func entries(v *holdfastv1.Value) map[string]*holdfastv1.Value {
	return v.GetOrmap().GetEntries()
}

func votes(v *holdfastv1.Value) map[string]uint32 {
	all := make(map[string]uint32, len(entries(v)))
	for question, n := range entries(v) {
		all[question] = uint32(min(n.GetGcounter(), math.MaxUint32))
	}
	return all
}

// cleanQuestion makes one question of texts that differ in white space only.
func cleanQuestion(text string) (string, error) {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return "", status.Error(codes.InvalidArgument, "question is empty")
	}
	if utf8.RuneCountInString(text) > maxQuestion {
		return "", status.Errorf(codes.InvalidArgument, "question is longer than %d characters", maxQuestion)
	}
	return text, nil
}

func increment() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}}
}

func changes(update *holdfastv1.MapUpdate) *holdfastv1.StateOut {
	return &holdfastv1.StateOut{Operations: []*holdfastv1.Operation{
		{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: update}},
	}}
}
