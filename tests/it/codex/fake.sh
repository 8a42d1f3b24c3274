#!/bin/sh
# A stand-in for `codex app-server`. What it does stands in the prompt: `hold` says a word and waits for a steer,
# `background` leaves a command behind, `end it` lets that command end, `nonsense` answers twice, wrongly and to nobody,
# `leave` ends the program in the middle, anything else is answered at once. A steer ends the turn; one that has the word
# `late` finds that its turn is over (`very late`: and is told so when a line comes through the pipe $FAKE_LOG.go), `the
# deaf` is refused though it goes on, `dying` ends turn and agent, `mute` is never answered (`over and mute`: when its turn has
# ended). Each line that it hears goes to $FAKE_LOG, its
# environment and its arguments to files beside it.
turn=0
behind=0

say() { printf '%s\n' "$1"; }
note() { say "{\"method\":\"$1\",\"params\":{\"threadId\":\"t1\",$2}}"; }
item() { note "item/$1" "\"turnId\":\"n$2\",\"item\":{$3}"; }
begin() { item started "$turn" "\"type\":\"agentMessage\",\"id\":\"m$1\",\"text\":\"\""; }
end() { item completed "$turn" "\"type\":\"agentMessage\",\"id\":\"m$1\",\"text\":\"$2\""; }
finish() { note turn/completed "\"turn\":{\"id\":\"n$turn\",\"status\":\"$1\"}"; }
command() { item "$1" "$behind" "\"type\":\"commandExecution\",\"id\":\"c$behind\",\"command\":\"serve\",$2"; }

env >"$FAKE_LOG.env"
printf '%s\n' "$*" >"$FAKE_LOG.args"
while IFS= read -r line; do
  printf '%s\n' "$line" >>"$FAKE_LOG"
  id=${line#*'"id":'}
  id=${id%%,*}
  case "$line" in
  *'"method":"initialize"'*)
    say "{\"id\":$id,\"result\":{\"userAgent\":\"gooselake/${FAKE_VERSION:-0.169.0} (fake)\"}}" ;;
  *'"method":"account/read"'*)
    say "{\"id\":$id,\"result\":{\"account\":null,\"requiresOpenaiAuth\":${FAKE_LOGIN:-false}}}" ;;
  *'"method":"thread/start"'* | *'"method":"thread/resume"'*)
    say "{\"id\":$id,\"result\":{\"thread\":{\"id\":\"t1\"},\"model\":\"fake-1\"}}" ;;
  *'"method":"model/list"'*)
    say "{\"id\":$id,\"result\":{\"data\":[{\"model\":\"fake-1\",\"displayName\":\"Fake\"}]}}" ;;
  *'"method":"turn/start"'*)
    turn=$((turn + 1))
    say "{\"id\":$id,\"result\":{\"turn\":{\"id\":\"n$turn\"}}}"
    case "$line" in
    *hold*)
      begin "$turn"
      note item/agentMessage/delta "\"turnId\":\"n$turn\",\"itemId\":\"m$turn\",\"delta\":\"holding\"" ;;
    *background*)
      behind=$turn
      command started '"status":"inProgress"'
      finish completed ;;
    *'end it'*)
      command completed '"status":"completed","exitCode":0,"aggregatedOutput":"served\n"'
      finish completed ;;
    *nonsense*)
      say '{"id":'
      say 'no JSON'
      say '{"id":999,"result":{}}'
      say '{"id":"x","error":{"code":1,"message":"no"}}'
      say "{\"id\":$id,\"result\":{\"turn\":{\"id\":\"n99\"}}}"
      note turn/completed '"turn":{"id":"n98","status":"failed"}'
      begin "$turn"
      end "$turn" answered
      end "$turn" again
      finish completed
      finish failed
      finish completed ;;
    *leave*)
      begin "$turn"
      note item/agentMessage/delta "\"turnId\":\"n$turn\",\"itemId\":\"m$turn\",\"delta\":\"so far\""
      exit 0 ;;
    *)
      begin "$turn"
      end "$turn" answered
      finish completed ;;
    esac ;;
  *'"method":"turn/steer"'*)
    case "$line" in
    *'very late'*)
      end "$turn" holding
      finish completed
      # It is answered when somebody says so, so that a story can put something in between.
      read -r _ <"$FAKE_LOG.go"
      say "{\"id\":$id,\"error\":{\"code\":-32600,\"message\":\"no active turn to steer\"}}" ;;
    *'over and mute'*)
      end "$turn" holding
      finish completed ;;
    *mute*) ;;
    *'the deaf'*)
      say "{\"id\":$id,\"error\":{\"code\":-32600,\"message\":\"not now\"}}" ;;
    *dying*)
      end "$turn" holding
      finish completed
      exit 0 ;;
    *late*)
      end "$turn" holding
      finish completed
      say "{\"id\":$id,\"error\":{\"code\":-32600,\"message\":\"no active turn to steer\"}}" ;;
    *)
      say "{\"id\":$id,\"result\":{\"turnId\":\"n$turn\"}}"
      item started "$turn" '"type":"userMessage","id":"u"'
      begin "s$turn"
      end "s$turn" steered
      finish completed ;;
    esac ;;
  *'"method":"thread/backgroundTerminals/list"'*)
    say "{\"id\":$id,\"result\":{\"data\":[{\"itemId\":\"c$behind\",\"processId\":\"1\"}]}}" ;;
  *'"method":"turn/interrupt"'*)
    say "{\"id\":$id,\"result\":{}}"
    finish interrupted ;;
  esac
done
