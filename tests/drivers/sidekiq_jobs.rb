# The jobs of the Sidekiq flow, and their client. SERVER says where Redis is.
require "sidekiq"

# Sidekiq 6.4 calls redis-rb in ways that its later versions complain of, at each call.
Redis.silence_deprecations = true if Redis.respond_to?(:silence_deprecations=)
Sidekiq.configure_client { |config| config.redis = {url: ENV["SERVER"]} }
Sidekiq.configure_server do |config|
  config.redis = {url: ENV["SERVER"]}
  # Seconds between its looks at what is scheduled, and at what is to be repeated.
  config.options[:poll_interval_average] = 0.5
end

# Each run leaves a trace: the number in a list, and the time.
class Note
  include Sidekiq::Worker
  sidekiq_options queue: "default"

  def perform(list, number)
    Sidekiq.redis { |redis| redis.rpush(list, number) }
  end
end

class Now
  include Sidekiq::Worker
  sidekiq_options queue: "low"

  def perform(list)
    Sidekiq.redis { |redis| redis.rpush(list, Time.now.to_f) }
  end
end

# Fails at its first and second run. Sidekiq repeats it after half a minute, or when somebody says so.
class Flaky
  include Sidekiq::Worker
  sidekiq_options queue: "low", retry: 3

  def perform(number)
    runs = Sidekiq.redis { |redis| redis.incr("runs:#{number}") }
    raise "not yet" if runs < 3
  end
end

# Fails, and is not tried again.
class Fails
  include Sidekiq::Worker
  sidekiq_options queue: "low", retry: 0

  def perform(number)
    raise "no #{number}"
  end
end
