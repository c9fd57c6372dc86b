//go:build !linux || !amd64

package runner

const tracerEnv = "FLAUDEBOT_TEST_TRACER"

func tracerMain() int { return 96 }
