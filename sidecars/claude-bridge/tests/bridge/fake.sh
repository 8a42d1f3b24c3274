#!/bin/sh
# Stands for the `claude` program in tests: answers the control protocol in the simplest way, and does what the first
# word of a message says. It logs its command line to $FAKE_LOG, and its version and account come from the environment.
echo "argv $*" >> "$FAKE_LOG"
if [ "$1" = --version ]; then
  echo "${FAKE_VERSION:-2.1.330} (Claude Code)"
  exit 0
fi
account=${FAKE_ACCOUNT:-'{"apiKeySource":"ANTHROPIC_API_KEY"}'}
say() {
  echo '{"type":"stream_event","event":{"type":"message_start","message":{"id":"m"}},"parent_tool_use_id":null}'
  echo '{"type":"stream_event","event":{"type":"content_block_start","content_block":{"type":"text"}},"parent_tool_use_id":null}'
  echo "{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"$1\"}},\"parent_tool_use_id\":null}"
  echo "{\"type\":\"assistant\",\"message\":{\"id\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]},\"parent_tool_use_id\":null}"
}
result() {
  echo '{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed","usage":{}}'
}
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"request_id":"\([^"]*\)".*/\1/p')
  case $line in
    *'"subtype":"initialize"'*)
      [ -n "$FAKE_SILENT" ] && continue
      echo "{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"$id\",\"response\":{\"claude_code_version\":\"${FAKE_VERSION:-2.1.330}\",\"account\":$account,\"models\":[{\"value\":\"default\",\"displayName\":\"Default\",\"supportedEffortLevels\":[\"low\",\"high\"]}]}}}" ;;
    *'"subtype":"interrupt"'*)
      echo "{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"$id\",\"response\":{}}}"
      echo '{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_streaming"}' ;;
    *'"type":"control_request"'*)
      echo "{\"type\":\"control_response\",\"response\":{\"subtype\":\"error\",\"request_id\":\"$id\",\"error\":\"Unsupported control request subtype\"}}" ;;
    *'"type":"control_response"'*)
      case $line in
        *'"subtype":"error"'*) say refused ;;
        *'"behavior":"allow"'*) say allowed ;;
        *) say denied ;;
      esac
      result ;;
    *'"text":"broken'*)
      echo '{"type":"stream_event","event":{'
      echo 'no JSON at all'
      echo '"a text"'
      printf '\377\376\n'
      say mended
      result ;;
    *'"text":"exit'*)
      echo 'out of luck' >&2
      exit 3 ;;
    *'"text":"flood'*)
      i=0
      while [ $i -lt 200 ]; do
        echo "noise $i on stderr, which nobody reads line by line, and which must not hold anything back" >&2
        i=$((i + 1))
      done
      echo '{"type":"stream_event","event":{"type":"message_start","message":{"id":"f"}},"parent_tool_use_id":null}'
      echo '{"type":"stream_event","event":{"type":"content_block_start","content_block":{"type":"text"}},"parent_tool_use_id":null}'
      yes '{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}},"parent_tool_use_id":null}' | head -n 20000
      result ;;
    *'"text":"odd'*)
      echo '{"type":"control_request","request_id":"odd-1","request":{"subtype":"hook_callback","callback_id":"h"}}' ;;
    *'"text":"ask'*)
      echo '{"type":"control_request","request_id":"ask-1","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"ls"},"tool_use_id":"t1"}}' ;;
    *'"text":"env '*)
      name=$(printf '%s' "$line" | sed 's/.*"text":"env \([A-Z_]*\).*/\1/')
      say "$name=$(printenv "$name" || echo unset)"
      result ;;
    *'"text":"leave'*)
      # Behind a setsid no signal to the group reaches it, and it does not heed TERM.
      setsid sh -c "trap '' TERM; echo \$\$ > '$FAKE_LOG.pid'; while :; do sleep 1; done" </dev/null >/dev/null 2>&1 &
      while [ ! -s "$FAKE_LOG.pid" ]; do sleep 0.01; done
      trap '' TERM
      say left ;;
    *'"text":"'*)
      say "bytes $(printf '%s' "$line" | wc -c | tr -d ' ')"
      result ;;
  esac
done
