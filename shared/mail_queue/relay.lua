-- Stands before `claim.lua` and `settle.lua`: the relay as all mailers see it together, a breaker and a pace.
--
-- The hash RELAY: state ('open': held, nobody sends but one probe at a time; 'closed') · changed: when it did last ·
-- reason, detail: why it is held · wait: seconds before a probe, doubling · probe_at: when the next may go · probe:
-- claim of the mail that probes · probe_until: when it counts no more · window: most mails in flight, until it is
-- large · tokens, filled: mails that the pace allowed, and when · refused: ids of different mails in a row in
-- which our sender or login was refused · refusal: how, the same for all of them · in_at: about when a worker that has no
-- hash AWAY was let in, since the relay was last held. Without the hash nobody has met the relay lately, and one mail
-- goes first.
--
-- The hash AWAY is there for a worker that was turned away and not let in since, for an hour after it last tried: at: when
-- it was turned away · reason, detail · wait: seconds before it tries again though others are let in, doubling; 0: they
-- may be turned away, too · retry_at: when it may.
local RELAY = KEYS[OWN_KEYS + 3]
local AWAY = RELAY .. ':away:' .. ARGV[8]
local DAY, HOUR = 86400, 3600
local PROBE_SECONDS = 60
local SLOW_START_SECONDS, LARGE_WINDOW = 5, 256
local REFUSALS_THAT_OPEN = 3
local LATELY_SECONDS, NOTED_SECONDS = 300, 10

-- A relay that has turned everybody away, or that nobody has met lately, is given few mails at first, then twice as
-- many in each round; not for long, lest mails that take their time hold up all others.
local function window_of(relay)
    if not relay.changed then
        return 1
    end
    local window = tonumber(relay.window or '0')
    return window > 0 and now - tonumber(relay.changed) < SLOW_START_SECONDS and window or nil
end

local function read(key, names)
    local values = redis.call('HMGET', key, unpack(names))
    local hash = {}
    for i, name in ipairs(names) do
        hash[name] = values[i] or nil
    end
    return hash
end

-- Read again only after it was written: most mails have nothing to tell about it.
local relay_as_read

local function read_relay()
    relay_as_read = relay_as_read or read(RELAY, {'state', 'changed', 'wait', 'probe_at', 'probe', 'probe_until',
        'window', 'tokens', 'filled', 'refused', 'refusal', 'reason', 'detail', 'in_at'})
    return relay_as_read
end

local function write_relay(command, ...)
    relay_as_read = nil
    redis.call(command, RELAY, ...)
end

local function read_away()
    return read(AWAY, {'at', 'wait', 'retry_at', 'reason', 'detail'})
end

-- A relay that is not held has let somebody in since this worker was turned away: it may be alone with that.
local function is_alone(relay, away)
    return away.at ~= nil and relay.state ~= 'open'
end

local function hold_relay(relay, reason, detail, hint, first, longest)
    local wait = first
    local is_again = relay.state == 'open' or (relay.wait and now - tonumber(relay.changed) < 2 * tonumber(relay.wait))
    if is_again and relay.wait then
        wait = math.min(longest, 2 * tonumber(relay.wait))
    end
    write_relay('HSET', 'state', 'open', 'reason', reason, 'detail', detail, 'wait', wait,
        'probe_at', seconds(now + math.max(wait, hint)))
    if relay.state ~= 'open' then
        write_relay('HSET', 'changed', seconds(now))
    end
    write_relay('HDEL', 'refused', 'refusal', 'in_at')
    write_relay('EXPIRE', DAY)
end

local function release_relay()
    write_relay('HDEL', 'reason', 'detail', 'refused', 'refusal', 'probe', 'probe_until')
    write_relay('HSET', 'state', 'closed', 'changed', seconds(now), 'window', 2)
end
