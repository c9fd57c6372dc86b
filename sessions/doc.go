// Package sessions ties a Slack thread to a Claude Code conversation on a machine of its own.
//
// It owns the words Session and Turn, where they are kept, and what happens to them: a session is
// created, its turns are run one at a time in the order in which they were accepted, what a crash left
// half done is settled by whoever comes next, and in the end machine and volume are removed.
//
// What sessions cost is added up for each month, and what is left behind on Fly is accounted for: [Service.Costs], [Service.Holdings].
//
// It is the only place where the queue, Fly and the runner meet. It knows nothing of Slack's API: where
// turns come from and where their outcomes go is a [Front], which package bot implements.
//
// [Machines] is the life cycle alone, without Redis and without Slack, for a script or a test:
// Create, RunTurn, Destroy, RunOnce.
package sessions
