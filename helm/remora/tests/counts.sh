# Counts a key five times through every pod, then asks every pod for the sum of all. Runs in the pod of 'helm test'.
set -eu
pods=$(nslookup "$PEERS" | awk '/^Name:/ { seen = 1 } seen && /^Address/ { print $NF }' | sort -u)
number=$(echo "$pods" | grep -c . || true)
echo "pods: $number"
if [ "$number" -lt 2 ]; then
    echo "FAILED: $PEERS has $number addresses; it takes two pods to share a count"
    exit 1
fi
at() {
    case $1 in
    *:*) echo "http://[$1]:$PORT" ;;
    *) echo "http://$1:$PORT" ;;
    esac
}
key="test-$(date +%s)-$$"
for pod in $pods; do
    for _ in 1 2 3 4 5; do
        timeout 5 wget -q -O /dev/null "$(at "$pod")/?count=$key" || {
            echo "FAILED: no answer from $pod"
            exit 1
        }
    done
done
sum=$((5 * number))
for pod in $pods; do
    tries=30
    while :; do
        got=$(timeout 5 wget -q -O - "$(at "$pod")/?read=$key" || echo nothing)
        [ "$got" != "$sum" ] || break
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "FAILED: $pod reads $got of $sum"
            exit 1
        fi
        sleep 1
    done
    echo "$pod reads $got of $sum"
done
echo "PASSED: every pod knows what was counted through the others"
