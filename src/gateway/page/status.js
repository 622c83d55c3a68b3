"use strict";
// Parts of the page come as the server would write them, escaped by it; scripts in them would not run
// (Content-Security-Policy).
(function () {
  const live = document.getElementById("live");
  const AGAIN_MS = 5000;

  function say(state, text) {
    live.className = "quiet " + state;
    live.textContent = text;
  }

  function show(id, html) {
    const place = document.getElementById(id);
    if (place) {
      place.innerHTML = html;
    }
  }

  function follow() {
    const source = new EventSource("events");
    source.addEventListener("open", () => say("on", "live"));
    source.addEventListener("page", (event) => {
      for (const [id, html] of Object.entries(JSON.parse(event.data))) {
        show(id, html);
      }
    });
    source.addEventListener("error", () => {
      say("off", "not connected: trying again");
      // Where the answer was a refusal, the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(follow, AGAIN_MS);
      }
    });
  }

  follow();
})();
