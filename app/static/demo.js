// The demo page: two clients in one group, taken from the URL (?group=), and what each knows of its connection.
import { connect } from "./shards.js";

const KEPT = 200; // messages that a pane shows

const group = new URLSearchParams(location.search).get("group") ?? "lobby";

class Pane {
  #root; #who; #client;
  #connects = 0;

  constructor(root) {
    this.#root = root;
    this.#who = root.dataset.who;
    const complain = (error) => this.#add(`${error.code}: ${error.message}`, "notice");
    this.#client = connect("/ws/", {
      online: (welcome) => {
        this.#show("state", "online");
        this.#show("replica", welcome.replica);
        this.#show("reconnects", this.#connects++);
      },
      offline: () => this.#show("state", "offline, coming back"),
      error: complain,
    });
    this.#client.subscribe(group, {
      subscribed: (frame) => {
        this.#show("offset", frame.offset);
        if (frame.recovered) this.#add("resumed: nothing missed", "notice");
      },
      message: (frame) => {
        this.#show("offset", frame.offset);
        this.#add(words(frame.data));
      },
      gap: () => this.#add("some history is gone", "notice"),
    });
    root.querySelector(".drop").onclick = () => this.#client.drop();
    root.querySelector(".talk").onsubmit = (event) => {
      event.preventDefault();
      this.#client.publish(group, { who: this.#who, text: event.target.text.value }).catch(complain);
      event.target.reset();
    };
  }

  #show(name, text) { this.#root.querySelector(`.${name}`).textContent = text; }

  #add(text, kind = "") {
    const messages = this.#root.querySelector(".messages");
    const item = document.createElement("li");
    item.textContent = text;
    item.className = kind;
    messages.append(item);
    while (messages.children.length > KEPT) messages.firstChild.remove();
    messages.scrollTop = messages.scrollHeight;
  }
}

/** Write a message, of ours or of anybody else in the group. */
function words(data) {
  if (data?.text === undefined) return JSON.stringify(data);
  return data.who ? `${data.who}: ${data.text}` : String(data.text);
}

document.getElementById("group").textContent = group;
for (const root of document.querySelectorAll(".pane")) new Pane(root);
