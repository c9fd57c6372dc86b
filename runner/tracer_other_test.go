//go:build !linux || !amd64

package runner

import "errors"

const (
	tracerEnv = "FLAUDEBOT_TEST_TRACER"
	tracedEnv = "FLAUDEBOT_TEST_TRACED"
)

func tracerMain() int { return 96 }

func haltAtSteps() error { return errors.New("nothing is traced here") }
