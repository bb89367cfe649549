// Passkeys: made once with a code from the terminal, and asked for each call that needs a
// signature. What the browser signs is the digest of exactly that call; the gateway verifies it.

import { Problem, post } from "/link.js";

// Browsers keep passkeys by this name, for all ports of this machine.
const SITE = "localhost";
const OWNER = "Bulkhead on this machine";
const STORED = "bulkhead.passkeys";
const LONGEST_WAIT = 120_000;
const ES256 = -7;

// Makes a passkey and has it enrolled with the one-time code.
export async function enrol(code) {
  const challenge = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(code));
  const made = await ask(() => navigator.credentials.create({
    publicKey: {
      challenge,
      rp: { id: SITE, name: "Bulkhead" },
      user: { id: crypto.getRandomValues(new Uint8Array(16)), name: "owner", displayName: OWNER },
      pubKeyCredParams: [{ type: "public-key", alg: ES256 }],
      authenticatorSelection: { residentKey: "preferred", userVerification: "required" },
      attestation: "none",
      timeout: LONGEST_WAIT,
    },
  }));
  const { response } = made;
  const enrolment = {
    credential: hex(made.rawId),
    public_key: hex(response.getPublicKey()),
    authenticator_data: hex(response.getAuthenticatorData()),
    client_data: hex(response.clientDataJSON),
  };
  await post("/passkey", { code, enrolment });
  localStorage.setItem(STORED, JSON.stringify([...known(), enrolment.credential].slice(-8)));
}

// Has a passkey sign the digest of a call; `signal` gives up.
export async function sign(digest, signal) {
  const used = await ask(() => navigator.credentials.get({
    signal,
    publicKey: {
      challenge: bytes(digest),
      rpId: SITE,
      allowCredentials: known().map((id) => ({ type: "public-key", id: bytes(id) })),
      userVerification: "required",
      timeout: LONGEST_WAIT,
    },
  }));
  return {
    credential: hex(used.rawId),
    authenticator_data: hex(used.response.authenticatorData),
    client_data: hex(used.response.clientDataJSON),
    signature: hex(used.response.signature),
  };
}

async function ask(browser) {
  if (!window.PublicKeyCredential) throw new Problem(0, "This browser has no passkeys.");
  try {
    return await browser();
  } catch (error) {
    throw new Problem(0, error.name === "InvalidStateError"
      ? "This authenticator has a passkey for this page already."
      : "No passkey answered.");
  }
}

// The passkeys made with this browser; without any, the browser offers those it finds.
function known() {
  try {
    return JSON.parse(localStorage.getItem(STORED) ?? "[]").filter((id) => /^([0-9a-f]{2})+$/.test(id));
  } catch {
    return [];
  }
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bytes(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
