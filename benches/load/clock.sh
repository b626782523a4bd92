# An agent that says what time it is, again and again, not in step with anybody who looks.
work() {
    for ((i = 0; i < 200; i++)); do
        say "msg_$i" "$EPOCHREALTIME"
        sleep "0.0$((30 + RANDOM % 40))"
    done
}
