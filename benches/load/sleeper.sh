# An agent that is there until somebody stops it.
work() {
    say msg_1 'I am here.'
    sleep 600
}
