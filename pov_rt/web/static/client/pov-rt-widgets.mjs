export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-C0Z6JVI1.mjs";
